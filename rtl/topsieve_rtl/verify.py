"""Random cases of a unit on the RTL, against the golden model to the bit and the timing function to the cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topsieve_rtl.cosim import Case, Divergence, Engine, first_divergence, require_engine, run
from topsieve_rtl.units import Unit, find_unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError

# Enough for a simulator's start to matter little, few enough for progress to be seen.
_BATCH = 50
_SHOWN_MISMATCHES = 10


@dataclass(frozen=True)
class Mismatch:
    """A case in which RTL and models part; `verify(..., cases=1, first_case=case)` runs it alone."""

    case: int
    divergence: Divergence


@dataclass(frozen=True)
class Verification:
    """Outcome of a verification; `mismatches` counts all, `shown` holds the first few."""

    unit: str
    config_name: str
    config_digest: str
    engine: Engine
    seed: int
    cases: int
    beats: int
    cycles: int
    mismatches: int
    shown: tuple[Mismatch, ...]

    def __str__(self) -> str:
        verdict = "equal to the bit and to the cycle" if not self.mismatches else f"{self.mismatches} cases differ"
        return (
            f"{self.unit} ({self.config_name}, {self.config_digest}) on {self.engine}: {self.cases} cases, "
            f"{self.beats} beats, {self.cycles} cycles, seed {self.seed}: {verdict}"
        )


def verify(
    unit: str | Unit,
    config: AcceleratorConfig,
    *,
    cases: int = 200,
    engine: Engine | str = Engine.CXXRTL,
    seed: int = 0,
    first_case: int = 0,
    progress: Callable[[int, int], None] | None = None,
    waveform: Path | None = None,
) -> Verification:
    """Draw `cases` cases, run them on `engine` and compare every beat on every port with the models.

    Parameters
    ----------
    seed, first_case : case n is drawn from the pair (seed, n), whatever ran before it.
    progress : called with (cases done, cases in all) after each batch.
    waveform : VCD file for the first case that differs, written by Amaranth's simulator.

    Raises
    ------
    InputError
        unknown unit or engine, `cases` under 1, or a negative seed or case number.
    MissingToolError
        a tool of the engine is missing.
    """
    if cases < 1:
        raise InputError("too few cases", field="cases", value=cases, allowed=">= 1")
    for name, value in (("seed", seed), ("first_case", first_case)):
        if value < 0:
            raise InputError("negative", field=name, value=value, allowed=">= 0")
    if engine not in set(Engine):
        raise InputError("unknown engine", field="engine", value=engine, allowed=", ".join(Engine))
    engine = Engine(engine)
    require_engine(engine)
    chosen = find_unit(unit) if isinstance(unit, str) else unit
    design = chosen.design(config)
    beats = cycles = mismatches = 0
    shown: list[Mismatch] = []
    for start in range(first_case, first_case + cases, _BATCH):
        numbers = range(start, min(start + _BATCH, first_case + cases))
        drawn = [chosen.draw(config, np.random.default_rng([seed, number])) for number in numbers]
        for number, case, log in zip(numbers, drawn, run(design, drawn, engine), strict=True):
            beats += sum(len(channel.beats) for channel in log.channels.values())
            cycles += log.cycles
            divergence = first_divergence(chosen.expect(config, case), log.channels, ("models", f"RTL on {engine}"))
            if divergence is None:
                continue
            mismatches += 1
            if waveform is not None and not shown:
                _write_waveform(chosen, config, case, waveform)
            if len(shown) < _SHOWN_MISMATCHES:
                shown.append(Mismatch(number, divergence))
        if progress is not None:
            progress(numbers.stop - first_case, cases)
    return Verification(
        chosen.name, config.name, config.digest, engine, seed, cases, beats, cycles, mismatches, tuple(shown)
    )


def _write_waveform(unit: Unit, config: AcceleratorConfig, case: Case, path: Path) -> None:
    from topsieve_rtl.cosim.python_engine import run_python

    design = unit.design(config)
    run_python(design, [case.raw(design)], waveform=path)
