"""The files that sum a comparison up: JSON, CSV tables with units in their headers, plots."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from topsieve.compare import GPU_WORK_KEY, Outcome, method_folder
from topsieve.gpu import COLUMNS, GPU_KEY, from_plain, gpu_columns, shapes_to_measure
from topsieve.results import json_text, write_rows, write_text
from topsieve_kernels.bench.shapes import as_json
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.load import dump_config

SUMMARY_COLUMNS = (
    "method",
    "resolved",
    "cycles",
    "latency_us",
    "dram_bytes",
    "flops",
    "attention_flops",
    "energy_pj",
    "power_w",
    "query_rows",
    "lsb_rows",
    "selection_cycles",
    "selection_overlapped_cycles",
    "selection_dram_bytes",
    "selection_energy_pj",
    *COLUMNS,
)


def write_inputs(folder: Path, config: AcceleratorConfig) -> None:
    """Write the fully resolved configuration, before the work begins."""
    dump_config(config, folder / "accelerator.yaml")


def write_summary(outcome: Outcome, folder: Path) -> None:
    """Write `comparison.json`, the CSV tables and the shapes that a GPU would have to be measured at.

    Raises
    ------
    InputError
        a file cannot be written; those before it are whole.
    """
    write_text(folder / "comparison.json", outcome.to_json())
    results = outcome.results
    quality = [name for name in results[0]["fidelity"] if name not in SUMMARY_COLUMNS]
    columns = (*SUMMARY_COLUMNS, *quality)
    write_rows(folder / "summary.csv", columns, (_summary_row(result, columns) for result in results))
    write_rows(
        folder / "layers.csv",
        ("method", "layer", "sequences", "attention_tokens", "ffn_tokens", "heads"),
        (row for result in results for row in _layer_rows(result)),
    )
    write_rows(
        folder / "energy.csv",
        ("method", "component", "energy_pj"),
        (
            (result["method"], component, value)
            for result in results
            for component, value in result["hardware"]["energy_by_component_pj"].items()
        ),
    )
    write_rows(
        folder / "gpu.csv",
        ("method", "gpu", "call", "dimensions", "count", "us", "source", "bound_us", "energy_uj", "power_source"),
        (row for result in results for row in _gpu_rows(outcome, result)),
    )
    work = [counted for result in results for counted in from_plain(result[GPU_WORK_KEY])]
    write_text(folder / "gpu_shapes.json", json_text(as_json(shapes_to_measure(work))))
    write_rows(
        folder / "units.csv",
        ("method", "unit", "cause", "cycles"),
        (row for result in results for row in _unit_rows(result)),
    )


def write_plots(outcome: Outcome, folder: Path) -> bool:
    """Draw the plots into `folder`/plots; says whether matplotlib was there to draw them."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from topsieve.plots import plot_energy, plot_fidelity_against_cycles, plot_survival
    from topsieve.results import made_folder

    target = made_folder(folder / "plots")
    machine = outcome.facts["accelerator"]["name"]
    results = outcome.results
    metric = results[0]["metrics"][0]
    plot_fidelity_against_cycles(
        {result["method"]: result["hardware"]["cycles"] for result in results},
        {result["method"]: result["fidelity"][metric["name"]] for result in results},
        target / "fidelity-cycles.png",
        machine,
        metric["label"],
    )
    plot_energy(
        {result["method"]: result["hardware"]["energy_by_component_pj"] for result in results},
        target / "energy.png",
        machine,
    )
    for result in results:
        name = method_folder(folder, result["method"]).name
        survival = result["survival"]
        plot_survival(survival["words"], survival["layers"], target / f"survival-{name}.png", result["method"])
    return True


def _summary_row(result: Mapping[str, Any], columns: Sequence[str]) -> Sequence[object]:
    selection = {f"selection_{name}": value for name, value in result["hardware"]["selection"].items()}
    known = {**result["fidelity"], **result, **result["hardware"], **selection, **gpu_columns(result[GPU_KEY])}
    return [known[column] for column in columns]


def _gpu_rows(outcome: Outcome, result: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """Time and energy are of one call."""
    for cost in outcome.gpu_cost(result).ops:
        dimensions = " ".join(f"{name}={value}" for name, value in cost.op.dimensions.items())
        call = (cost.op.kind, dimensions, cost.count, cost.time_us, cost.source, cost.bound_us)
        yield (result["method"], outcome.gpu.platform.name, *call, cost.energy_uj, cost.power)


def _layer_rows(result: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    tokens = result["tokens"]
    for layer, row in enumerate(zip(tokens["attention"], tokens["ffn"], tokens["heads"], strict=True)):
        yield (result["method"], layer, tokens["sequences"], *row)


def _unit_rows(result: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    for row in result["hardware"]["units"]:
        yield (result["method"], row["unit"], "busy", row["busy_cycles"])
        for cause, cycles in row["stall_cycles"].items():
            yield (result["method"], row["unit"], cause, cycles)
