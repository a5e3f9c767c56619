"""Random cases of a unit on the RTL, against the golden model to the bit and the timing function to the cycle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topsieve_rtl.cosim import Case, Divergence, Engine, first_divergence, prepare, require_engine, run
from topsieve_rtl.units import Unit, find_unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError

# Of the cases that a unit runs by default, in one start of the simulator: progress is seen, and the start matters little.
_BATCHES = 4
_SHOWN_MISMATCHES = 10


@dataclass(frozen=True)
class Mismatch:
    """A case in which RTL and models part; `verify(..., cases=1, first_case=case)` runs it alone."""

    case: int
    divergence: Divergence


@dataclass(frozen=True)
class Verification:
    """Outcome of a verification; `mismatches` counts all, `shown` holds the first few.

    Case `first_case` + n of `cases` is drawn from the pair (`seed`, `first_case` + n). `compared` says what the beats held.
    """

    unit: str
    config_name: str
    config_digest: str
    engine: Engine
    seed: int
    first_case: int
    cases: int
    beats: int
    cycles: int
    compared: Mapping[str, int]
    mismatches: int
    shown: tuple[Mismatch, ...]

    def __str__(self) -> str:
        verdict = "equal to the bit and to the cycle" if not self.mismatches else f"{self.mismatches} cases differ"
        counts = {"beats": self.beats, "cycles": self.cycles, **self.compared}
        return (
            f"{self.unit} ({self.config_name}, {self.config_digest}) on {self.engine}: {self.cases} cases "
            f"(seed {self.seed}, {self.first_case} to {self.first_case + self.cases - 1}), "
            f"{', '.join(f'{count} {name}' for name, count in counts.items())}: {verdict}"
        )


def verify(
    unit: str | Unit,
    config: AcceleratorConfig,
    *,
    cases: int | None = None,
    engine: Engine | str | None = None,
    seed: int = 0,
    first_case: int = 0,
    progress: Callable[[int, int], None] | None = None,
    stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    waveform: Path | None = None,
) -> Verification:
    """Draw `cases` cases, run them on `engine` and compare every beat on every port with the models.

    Parameters
    ----------
    cases, engine : default: the unit's own (`Unit.default_cases`, `Unit.default_engine`).
    seed, first_case : case n is drawn from the pair (seed, n), whatever ran before it.
    progress : called with (cases done, cases in all) after each batch.
    stage : called with what is about to happen where it may take minutes; it happens inside the context.
    waveform : VCD file for the first case that differs, written by Amaranth's simulator.

    Raises
    ------
    InputError
        unknown unit or engine, `cases` under 1, or a negative seed or case number.
    MissingToolError
        a tool of the engine is missing.
    """
    chosen = find_unit(unit) if isinstance(unit, str) else unit
    cases = chosen.default_cases if cases is None else cases
    engine = chosen.default_engine if engine is None else engine
    if cases < 1:
        raise InputError("too few cases", field="cases", value=cases, allowed=">= 1")
    for name, value in (("seed", seed), ("first_case", first_case)):
        if value < 0:
            raise InputError("negative", field=name, value=value, allowed=">= 0")
    if engine not in set(Engine):
        raise InputError("unknown engine", field="engine", value=engine, allowed=", ".join(Engine))
    engine = Engine(engine)
    require_engine(engine)
    design = chosen.design(config)
    with stage(f"building {design.name} for {engine}"):
        prepare(design, engine)
    batch = max(1, chosen.default_cases // _BATCHES)
    compared: Counter[str] = Counter()
    beats = cycles = mismatches = 0
    shown: list[Mismatch] = []
    for start in range(first_case, first_case + cases, batch):
        numbers = range(start, min(start + batch, first_case + cases))
        drawn = [chosen.draw(config, np.random.default_rng([seed, number])) for number in numbers]
        for number, case, log in zip(numbers, drawn, run(design, drawn, engine), strict=True):
            beats += sum(len(channel.beats) for channel in log.channels.values())
            cycles += log.cycles
            compared.update(chosen.compared(config, case))
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
        unit=chosen.name,
        config_name=config.name,
        config_digest=config.digest,
        engine=engine,
        seed=seed,
        first_case=first_case,
        cases=cases,
        beats=beats,
        cycles=cycles,
        compared=dict(compared),
        mismatches=mismatches,
        shown=tuple(shown),
    )


def _write_waveform(unit: Unit, config: AcceleratorConfig, case: Case, path: Path) -> None:
    from topsieve_rtl.cosim.python_engine import run_python

    design = unit.design(config)
    run_python(design, [case.raw(design)], waveform=path)
