"""Every method on every model of this package: measured into JSON files, from which the page and its plots are made.

`python -m topsieve.leaderboard docs` measures, then writes; `--page` writes from what was measured before.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topsieve.exploration.pareto import pareto_front
from topsieve.leaderboard_text import HEAD, lessons
from topsieve.methods import describe, method_names
from topsieve.results import json_text, made_folder, write_text
from topsieve_sim.errors import InputError

ACCELERATOR = "spatten"
# Needs no look at the data: what a method must beat to be worth its selection.
BASELINES = ("random", "uniform", "pooling")
# Which measure ranks and is plotted, where it is not the model's first: bytes are easily guessed without a cache's
# better half, and so perplexity hardly tells methods apart.
RANKED_BY = {"byte-gpt": "recall_accuracy"}
FOLDER = "leaderboard"
PAGE = "leaderboard.md"


@dataclass(frozen=True)
class Setting:
    """How one model is asked: see `topsieve.compare.Question` and `topsieve.subjects.subject.Inputs`."""

    model: str
    keep: float
    paragraphs: int
    sequences: int


SETTINGS = (
    Setting("digits-vit", keep=0.5, paragraphs=0, sequences=4),
    Setting("mosaic-llava", keep=0.25, paragraphs=200, sequences=4),
    Setting("minilm", keep=0.5, paragraphs=24, sequences=2),
    Setting("byte-gpt", keep=0.5, paragraphs=48, sequences=1),
)


def methods() -> tuple[str, ...]:
    """Those that act inside a model; what shortens a text before any model reads it has another scale of costs."""
    return tuple(name for name in method_names() if describe(name).acts_on != ("prompt",))


def measure(setting: Setting, work: Path) -> dict[str, Any]:
    """What the page needs of one model, as plain data; `work` takes the comparison's own files."""
    import torch

    from topsieve.compare import Question, compare
    from topsieve.subjects.subject import Inputs
    from topsieve_sim.arch import load_config

    torch.set_num_threads(1)
    inputs = Inputs(paragraphs=setting.paragraphs, sequences=setting.sequences)
    question = Question(setting.model, methods(), setting.keep, load_config(ACCELERATOR), inputs, every=True)
    outcome = compare(question, work / setting.model, progress=lambda line: print(setting.model, line, flush=True))
    facts = {name: value for name, value in outcome.facts.items() if name not in ("accelerator", "versions")}
    return {
        "facts": {**facts, "accelerator": ACCELERATOR},
        "metrics": outcome.results[0]["metrics"],
        "rows": [_row(result) for result in outcome.results],
        "refused": dict(outcome.refused),
    }


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    hardware, tokens = result["hardware"], result["tokens"]
    kept = ("cycles", "latency_us", "energy_pj", "dram_bytes", "flops", "selection")
    return {
        "method": result["method"],
        "quality": {metric["name"]: result["fidelity"][metric["name"]] for metric in result["metrics"]},
        "tokens": tokens["attention"][-1] / tokens["sequences"],
        **{name: hardware[name] for name in kept},
    }


def load_measured(folder: Path) -> list[dict[str, Any]]:
    """What `measure` left in `folder`, one a model.

    Raises
    ------
    InputError
        a model's file is missing or is none.
    """
    found = []
    for setting in SETTINGS:
        path = folder / f"{setting.model}.json"
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError("cannot read: run make leaderboard", source=str(path)) from error
    return found


def ranking_metric(measured: Mapping[str, Any]) -> Mapping[str, Any]:
    """The measure of quality that ranks."""
    wanted = RANKED_BY.get(measured["facts"]["model"], measured["metrics"][0]["name"])
    return next(metric for metric in measured["metrics"] if metric["name"] == wanted)


def goodness(measured: Mapping[str, Any]) -> dict[str, float]:
    """By method, the measure of quality that ranks, turned so that more is better."""
    metric = ranking_metric(measured)
    sign = -1 if metric["lower"] else 1
    return {row["method"]: sign * row["quality"][metric["name"]] for row in measured["rows"]}


def fronts(measured: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The methods that none beats in quality and in `latency_us`, and in quality and `energy_pj`; cheapest first."""
    good, found = goodness(measured), {}
    for cost in ("latency_us", "energy_pj"):
        rows = sorted(measured["rows"], key=lambda row: row[cost])
        places = pareto_front([(row[cost], -good[row["method"]]) for row in rows])
        found[cost] = tuple(rows[place]["method"] for place in places)
    return found


def page(measured: Sequence[Mapping[str, Any]]) -> str:
    """The page in Markdown."""
    parts = [HEAD.format(accelerator=ACCELERATOR, lessons=lessons({one["facts"]["model"]: one for one in measured}))]
    parts += ["\n".join(_section(one)) for one in measured]
    return "\n".join(parts) + "\n"


def _section(measured: Mapping[str, Any]) -> Iterator[str]:
    facts, metrics, good, front = measured["facts"], measured["metrics"], goodness(measured), fronts(measured)
    model = facts["model"]
    dense = next(row for row in measured["rows"] if row["method"] == "dense")
    yield f"## {model}\n"
    yield (
        f"`keep={facts['keep']}`; quality on {facts['paragraphs']} inputs, hardware on {facts['sequences']} "
        f"({facts['corpus']}). Ranked by {ranking_metric(measured)['title']}. Left of each row: `L`, `E`: on the front of "
        "latency, of energy.\n"
    )
    yield f"![{model}: quality against latency and energy]({FOLDER}/{model}.png)\n"
    titles = [metric["title"] for metric in metrics]
    heads = [
        "",
        "method",
        *titles,
        "latency us",
        "speed-up",
        "energy uJ",
        "of dense",
        "DRAM kB",
        "MFLOP",
        "tokens left",
    ]
    heads += ["selecting: cycles", "energy"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---|---|" + "---:|" * (len(heads) - 2)
    for row in sorted(measured["rows"], key=lambda row: (-good[row["method"]], row["latency_us"])):
        name, selection = row["method"], row["selection"]
        marks = "".join(mark for mark, cost in (("L", "latency_us"), ("E", "energy_pj")) if name in front[cost])
        cells = [
            marks,
            f"`{name}`" + (" (baseline)" if name in BASELINES else ""),
            *(f"{row['quality'][metric['name']]:.3f}" for metric in metrics),
            f"{row['latency_us']:.1f}",
            f"{dense['latency_us'] / row['latency_us']:.2f} x",
            f"{row['energy_pj'] / 1e6:.2f}",
            f"{row['energy_pj'] / dense['energy_pj']:.0%}",
            f"{row['dram_bytes'] / 1e3:.0f}",
            f"{row['flops'] / 1e6:.1f}",
            f"{row['tokens']:.1f}",
            f"{selection['cycles'] / row['cycles']:.1%}",
            f"{selection['energy_pj'] / row['energy_pj']:.1%}",
        ]
        yield "| " + " | ".join(cells) + " |"
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in measured["refused"].items():
        said = reason.replace(f" (got '{name}')", "").removeprefix("model: ").removeprefix("method: ")
        reasons[said.removeprefix("the method ").removeprefix(f"{name} ")].append(f"`{name}`")
    if reasons:
        yield "\nNot run:\n"
    for reason, names in reasons.items():
        yield f"* {reason}: {', '.join(names)}"
    yield ""


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """Quality over latency and over energy, the fronts joined and named, baselines and the full model marked."""
    from topsieve.plots import PALETTE, new_figure, write_figure

    metric, front = ranking_metric(measured), fronts(measured)
    figure, panels = new_figure(10.0, 4.6, columns=2)
    costs = (("latency_us", 1.0, "latency (µs)"), ("energy_pj", 1e-6, "energy (µJ)"))
    for axes, (cost, factor, label) in zip(panels, costs, strict=True):
        places = {row["method"]: (row[cost] * factor, row["quality"][metric["name"]]) for row in measured["rows"]}
        axes.plot(*zip(*places.values(), strict=True), "o", color=PALETTE[4], markersize=4, label="a method")
        joined = [places[name] for name in front[cost]]
        axes.plot(*zip(*joined, strict=True), "-o", color=PALETTE[0], markersize=6, label="no other beats it")
        plain = [places[name] for name in BASELINES if name in places]
        axes.plot(*zip(*plain, strict=True), "s", color=PALETTE[1], markersize=7, label="baseline")
        axes.plot(*places["dense"], "*", color=PALETTE[7], markersize=11, label="the full model")
        for name in {*front[cost], *(name for name in BASELINES if name in places), "dense"}:
            axes.annotate(name, places[name], xytext=(4, 4), textcoords="offset points", fontsize=7)
        if metric["lower"]:
            axes.invert_yaxis()
        axes.margins(0.12)
        axes.set_xlabel(f"{label} on {measured['facts']['accelerator']}")
        axes.set_ylabel(metric["label"])
    panels[1].legend(frameon=False, loc="best", fontsize=7)
    write_figure(figure, path)


def write(docs: Path) -> None:
    """The page and its plots, from the JSON files in `docs`/leaderboard."""
    measured = load_measured(docs / FOLDER)
    for one in measured:
        draw(one, docs / FOLDER / f"{one['facts']['model']}.png")
    write_text(docs / PAGE, page(measured))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure every method on every model and write the leaderboard.")
    parser.add_argument("docs", type=Path, help="folder of the page")
    parser.add_argument("--page", action="store_true", help="write the page from what was measured before")
    parser.add_argument("--work", type=Path, default=Path("results/leaderboard"), help="folder for the comparisons")
    parser.add_argument(
        "--model", choices=[setting.model for setting in SETTINGS], help="measure this one only, write no page"
    )
    given = parser.parse_args(arguments)
    folder = made_folder(given.docs / FOLDER)
    for setting in SETTINGS:
        if not given.page and given.model in (None, setting.model):
            write_text(folder / f"{setting.model}.json", json_text(measure(setting, given.work)))
    if given.model is None:
        write(given.docs)


if __name__ == "__main__":
    main()
