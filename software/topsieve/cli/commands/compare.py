"""Compare reduction methods on one model and one accelerator.

Every method runs on the model; the operations it really asks for run on the accelerator, with the model's own queries,
keys and values; its embeddings are compared with the full model's. Finished methods are kept in the folder, so the same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsieve.subjects.registry import subject_names

if TYPE_CHECKING:
    from topsieve.compare import Outcome

HELP = "methods side by side: fidelity, cycles, bytes, energy; one folder of results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="minilm",
        help=f"{', '.join(subject_names())}, or a local Hugging Face directory (default: minilm)",
    )
    parser.add_argument(
        "--methods",
        required=True,
        metavar="LIST",
        help="comma-separated, each NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE (see: topsieve methods); "
        "all: every method, those that do not run on the model are listed with the reason",
    )
    parser.add_argument("--keep", type=float, default=0.5, help="share of tokens to keep, in (0, 1] (default: 0.5)")
    parser.add_argument("--accelerator", default="spatten", help="a preset's name or a YAML file (default: spatten)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    parser.add_argument(
        "--gpu",
        metavar="NAME|FILE",
        help="what the accelerator stands beside: a GPU's data sheet (see: topsieve rivals --list), or a JSON file of make "
        "gpu-bench (default: the newest measurement that is committed, else h100-sxm)",
    )
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="paragraphs in UTF-8 (default: the model's own inputs)"
    )
    parser.add_argument(
        "--paragraphs", type=int, default=48, help="inputs for the quality; a FILE is read whole (default: 48)"
    )
    parser.add_argument("--sequences", type=int, default=8, help="inputs that run on the accelerator (default: 8)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of random methods and of scores a trace lacks (default: 0)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything that is written")
    parser.add_argument("--traces", action="store_true", help="keep each method's trace, for topsieve simulate")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.compare import Question, compare, split_methods
    from topsieve.compare_files import write_inputs, write_plots, write_summary
    from topsieve.corpus import read_corpus
    from topsieve.gpu import load_gpu
    from topsieve.results import made_folder
    from topsieve.subjects.subject import Inputs
    from topsieve_sim.arch.load import load_config

    question = Question(
        model=arguments.model,
        methods=split_methods(arguments.methods),
        keep=arguments.keep,
        config=load_config(arguments.accelerator, arguments.set),
        inputs=Inputs(
            corpus=read_corpus(arguments.text) if arguments.text else None,
            paragraphs=arguments.paragraphs,
            sequences=arguments.sequences,
            seed=arguments.seed,
        ),
        gpu=load_gpu(arguments.gpu),
    )
    out = made_folder(arguments.out)
    write_inputs(out, question.config)
    outcome = compare(question, out, traces=arguments.traces, progress=_say)
    write_summary(outcome, out)
    _say("drawing")
    if not write_plots(outcome, out):
        _say("no plots: matplotlib is not installed (pip install 'topsieve[plot]')")
    if arguments.json:
        print(outcome.to_json(), end="")
    else:
        print_tables(outcome)
        print(f"\nwritten to {out}: comparison.json, CSV tables, plots, and a folder for each method")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def print_tables(outcome: Outcome) -> None:
    """Print what `topsieve compare` shows."""
    from topsieve.cli.show import count, main_stall, percent, print_table, quantity

    facts, results = outcome.facts, outcome.results
    sequences = facts["sequences"]
    print_table(
        f"{facts['model']} on {facts['accelerator']['name']}: {sequences} sequences of {facts['corpus']}, "
        f"quality on {facts['paragraphs']} inputs",
        [
            ("method", "left"),
            *((name, "right") for name in ("cycles", "speed-up", "latency us", "DRAM", "operations", "energy")),
            ("selecting: cycles", "right"),
            ("energy", "right"),
            ("tokens left", "right"),
            *((metric["title"], "right") for metric in results[0]["metrics"]),
        ],
        [
            [
                result["method"],
                count(result["hardware"]["cycles"]),
                _speed_up(outcome, result),
                f"{result['hardware']['latency_us']:,.1f}",
                quantity(result["hardware"]["dram_bytes"], "B"),
                quantity(result["hardware"]["flops"], "FLOP"),
                quantity(result["hardware"]["energy_pj"] * 1e-12, "J"),
                *_selection(result["hardware"], percent),
                f"{result['tokens']['attention'][-1] / sequences:.1f}",
                *(f"{result['fidelity'][metric['name']]:.3f}" for metric in result["metrics"]),
            ]
            for result in results
        ],
    )
    _print_gpu(outcome)
    units = ("memory", "dot_product", "softmax_exponential", "value_topk", "weighted_sum", "cascade_topk")
    print_table(
        "\nutilisation: busy share of all cycles; dot product waits mostly for",
        [("method", "left"), *((unit, "right") for unit in units), ("dot product waits for", "left")],
        [[result["method"], *_utilisation(result, units, percent, main_stall)] for result in results],
    )
    layers = range(max(len(result["tokens"]["attention"]) for result in results))
    print_table(
        "\ntokens that enter the attention of each layer, mean of the sequences",
        [("method", "left"), *((f"layer {layer}", "right") for layer in layers)],
        [
            [result["method"], *(f"{tokens / sequences:.1f}" for tokens in result["tokens"]["attention"])]
            for result in results
        ],
    )
    for note in results[0]["notes"]:
        print(f"note: {note}")
    if outcome.refused:
        print_table(
            f"\nnot run on {facts['model']}",
            [("method", "left"), ("reason", "left")],
            [[method, reason] for method, reason in outcome.refused.items()],
        )


def _print_gpu(outcome: Outcome) -> None:
    """The same operations on the GPU, side by side."""
    from topsieve.cli.show import percent, print_table
    from topsieve.gpu import GPU_KEY

    measurement = outcome.gpu.measurement
    basis = f"measured on {measurement.document.date}" if measurement else "nothing measured: a bound of its data sheet"
    print_table(
        f"\nthe same operations on {outcome.gpu.platform.title} ({basis})",
        [
            ("method", "left"),
            *((name, "right") for name in ("latency us", "GPU us", "latency / GPU", "energy uJ", "GPU energy uJ")),
            ("energy / GPU", "right"),
            ("GPU source", "left"),
            ("calls measured", "right"),
            ("GPU power", "left"),
        ],
        [
            [
                result["method"],
                f"{result['hardware']['latency_us']:,.1f}",
                f"{gpu['time_us']:,.2f}",
                # A time that is bounded from below bounds the ratio from above.
                ("at most " if gpu["roofline_us"] else "") + _number(gpu["accelerator_over_gpu_time"], ".3g"),
                f"{result['hardware']['energy_pj'] * 1e-6:,.2f}",
                _number(gpu["energy_uj"], ",.1f"),
                _number(gpu["accelerator_over_gpu_energy"], ".3g"),
                gpu["source"],
                percent(gpu["measured_share"]),
                gpu["power_source"],
            ]
            for result in outcome.results
            for gpu in (result[GPU_KEY],)
        ],
    )
    if any(result[GPU_KEY]["roofline_us"] for result in outcome.results):
        print("note: a roofline is a lower bound of the GPU's time, at batch one and without launches; see docs/gpu.md")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _speed_up(outcome: Outcome, result: Mapping[str, Any]) -> str:
    dense = next((other for other in outcome.results if other["method"] == "dense"), None)
    return f"{dense['hardware']['cycles'] / result['hardware']['cycles']:.2f} x" if dense else ""


def _selection(hardware: Mapping[str, Any], percent: Any) -> list[str]:
    """What scoring, choosing and merging take of all cycles and of all energy."""
    selection = hardware["selection"]
    return [percent(selection[part] / hardware[part]) for part in ("cycles", "energy_pj")]


def _utilisation(result: Mapping[str, Any], units: tuple[str, ...], percent: Any, main_stall: Any) -> list[str]:
    cycles = result["hardware"]["cycles"]
    rows = {row["unit"]: row for row in result["hardware"]["units"]}
    shares = [percent(rows[unit]["busy_cycles"] / cycles) for unit in units]
    return [*shares, main_stall(rows["dot_product"]["stall_cycles"], cycles)]
