"""A unit as a folder that another engineer can use without Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topsieve_rtl.cosim.codec import field_places
from topsieve_rtl.cosim.design import Design
from topsieve_rtl.synthesis.report import Report
from topsieve_rtl.units import Unit, find_unit
from topsieve_rtl.verilog.core_file import core_text
from topsieve_rtl.verilog.readme import readme_text
from topsieve_rtl.verilog.testbench import testbench_text, vectors_text
from topsieve_sim import __version__
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.load import config_yaml
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole


@dataclass(frozen=True)
class Package:
    """What was written: the top module and every file."""

    top: str
    folder: Path
    files: tuple[Path, ...]


def emit_unit(
    unit: str | Unit,
    config: AcceleratorConfig,
    folder: str | Path,
    *,
    command_line: str,
    cases: int = 20,
    seed: int = 0,
    reports: Sequence[Report] = (),
) -> Package:
    """Write Verilog, name map, testbench with vectors, FuseSoC core file, configuration and README.

    Equal arguments give equal bytes.

    Parameters
    ----------
    folder : created if missing; files of an earlier emission are replaced.
    command_line : the command that reproduces the files, for their headers.
    cases, seed : test cases in the vectors and the seed that they are drawn from.
    reports : resources to list in the README.

    Raises
    ------
    InputError
        unknown unit, `cases` under 1, a negative seed or a folder that cannot be written.
    """
    if cases < 1:
        raise InputError("too few cases", field="cases", value=cases, allowed=">= 1")
    if seed < 0:
        raise InputError("negative", field="seed", value=seed, allowed=">= 0")
    chosen = find_unit(unit) if isinstance(unit, str) else unit
    design = chosen.emitted(config)
    bench = chosen.bench(config) or design
    top = design.name
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder: {error.strerror}", source=str(target)) from error

    drawn = [chosen.draw(config, np.random.default_rng([seed, number])) for number in range(cases)]
    vectors = vectors_text(bench, [(case, chosen.expect(config, case)) for case in drawn])
    vectors_file = f"{top}_vectors.hex"
    header = _header(chosen, config, command_line)
    texts = {
        f"{top}.v": f"{header}\n{design.verilog}",
        f"{top}_names.json": json.dumps(name_map(design), indent=1) + "\n",
        f"{top}_tb.v": testbench_text(bench, f"{top}_tb", header, vectors_file, vectors.count("\n"), cases),
        vectors_file: vectors,
        f"{top}.core": core_text(top, chosen.summary, "" if bench is design else bench.name),
        f"{top}.yaml": f"# {command_line}\n{config_yaml(config)}",
        "README.md": readme_text(chosen, config, design, command_line, reports, "" if bench is design else bench.name),
        **chosen.documents(config, command_line),
    }
    if bench is not design:
        texts[f"{bench.name}.v"] = f"{header}\n{bench.verilog}"
    for name, text in texts.items():
        with written_whole(target / name) as stream:
            stream.write(text)
    return Package(top, target, tuple(target / name for name in texts))


def _header(unit: Unit, config: AcceleratorConfig, command_line: str) -> str:
    return "\n".join(
        f"// {line}"
        for line in (
            unit.summary,
            f"Topsieve {__version__}, configuration {config.name}, digest {config.digest}",
            f"Written by: {command_line}",
            "SPDX-License-Identifier: Apache-2.0",
            "Clock clk, rising edge; reset rst, synchronous, active high.",
        )
    )


def name_map(design: Design) -> dict[str, Any]:
    """Ports with the place of every payload field, and the instance path of every Verilog module."""
    ports: list[dict[str, Any]] = [
        {"name": "clk", "direction": "input", "bits": 1},
        {"name": "rst", "direction": "input", "bits": 1},
    ]
    for direction, opposite, streams in (("input", "output", design.sources), ("output", "input", design.sinks)):
        for port in streams:
            fields = [
                {"path": path, "lowest_bit": lowest, "bits": shape.width, "signed": shape.signed}
                for path, lowest, shape in field_places(port.shape)
            ]
            ports += [
                {"name": f"{port.name}__valid", "direction": direction, "bits": 1},
                {"name": f"{port.name}__ready", "direction": opposite, "bits": 1},
                {"name": f"{port.name}__payload", "direction": direction, "bits": port.bits, "fields": fields},
            ]
    for direction, plain in (("input", design.constants), ("output", design.status)):
        ports += [{"name": port.name, "direction": direction, "bits": port.bits} for port in plain]
    modules = [line.split("(")[0].split()[1] for line in design.verilog.splitlines() if line.startswith("module ")]
    return {
        "top": design.name,
        "ports": ports,
        "modules": {module: module.replace("__", ".") for module in sorted(modules)},
    }
