"""The words of the leaderboard; every number in them is taken from the results."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

# Where methods for models of vision and language choose: with the question in sight, or before it.
WITH_THE_QUESTION = ("fastv", "pyramiddrop", "dart", "sparsevlm", "pact")
BEFORE_THE_QUESTION = ("fastervlm", "visionzip", "divprune", "hiprune", "zoo-prune", "globalcom2", "tokencorr")

HEAD = """# Leaderboard

Every method on the four models that come with this package, at equal `keep`, on the accelerator `{accelerator}`. Latency and
energy are of attention and of all scoring, choosing and merging; linear maps run on the host, and their savings show under
MFLOP. "Selecting" is what the method itself costs, of the row's cycles and energy. Methods that act behind a model's last layer
can save nothing there and show their price alone. `random`, `uniform` (plain down-sampling) and `pooling` look at nothing
before they choose. A point is on the front when no other method is at least as good and as cheap, and better in one.

{lessons}

The models are small, the inputs few and the seed is one: differences of a percent or two are noise, and nothing here is a claim
about large models. `make leaderboard` measures again and writes this page.
"""

LESSONS = """**Ask the baselines first.** Of the methods that need no more energy than the best
baseline, these are better than it: {better}. Which baseline is
the one to beat depends on the data: on digits-vit evenly spaced tokens read {uniform_digits:.1%} of the digits, the full model
{dense_digits:.1%}, for {uniform_energy:.0%} of its energy, because neighbouring pixels say the same; on minilm, where a dropped
word is lost, they keep a cosine of {uniform_minilm:.3f}, and `spatten`, with as many tokens, {spatten_minilm:.3f}. On mosaic-llava it counts
what a method knows when it chooses: those that choose inside the language model, with the question in sight, answer at least
{worst_with:.1%} of the questions for a cell, the full model {dense_cell:.1%}; of those that choose before it, from the image alone,
the best ({best_before_name}) answers {best_before:.1%}. On byte-gpt it counts how it scores: half of the cache, chosen before the
question is known, recalls {snapkv_recall:.1%} with `snapkv`, by attention, and {keydiff_recall:.1%} with `keydiff`, by keys unlike the others;
at random {random_recall:.1%}. And no measure will do alone: `spatten` recalls {spatten_recall:.1%} there and has {spatten_perplexity:.2f} times
the full model's perplexity.

**The choice has a price.** It takes up to {cycles_share:.0%} of the cycles (`{cycles_name}` on {cycles_model}) and up to
{energy_share:.0%} of the energy (`{energy_name}` on {energy_model}): {worse} of {choosing} runs that choose anything need more energy
than the full model. Operations do not show it: on digits-vit `tome` does {tome_flops:.0%} of the full model's operations and takes
{tome_cycles:.0%} of its cycles, since {tome_select:.0%} of these are similarities, matches and merges. A method that only sums
the attention it computes anyway pays little: `spatten` spends {spatten_select:.1%} of its cycles there on digits-vit. So a method for
hardware should read what is there already, act early, and act where much is left to be saved."""


def lessons(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """What the results teach, two paragraphs.

    Parameters
    ----------
    measured : by model, see `topsieve.leaderboard.measure`; all four.
    """
    rows = {model: {row["method"]: row for row in one["rows"]} for model, one in measured.items()}
    digits, mosaic, minilm, gpt = (rows[name] for name in ("digits-vit", "mosaic-llava", "minilm", "byte-gpt"))

    def cell(name: str) -> float:
        return float(mosaic[name]["quality"]["cell"])

    best_before = max((name for name in BEFORE_THE_QUESTION if name in mosaic), key=cell)
    every = [(model, name, row) for model, of in rows.items() for name, row in of.items()]
    choosing = [(model, name, row) for model, name, row in every if row["selection"]["energy_pj"] > 0]
    most = {
        part: max(choosing, key=lambda entry, part=part: entry[2]["selection"][part] / entry[2][part])  # type: ignore[misc]
        for part in ("cycles", "energy_pj")
    }
    tome, spatten, dense = digits["tome"], digits["spatten"], digits["dense"]
    text = LESSONS.format(
        better=_listed([_against_baseline(one) for one in measured.values()]),
        uniform_digits=digits["uniform"]["quality"]["accuracy"],
        dense_digits=dense["quality"]["accuracy"],
        uniform_energy=digits["uniform"]["energy_pj"] / dense["energy_pj"],
        uniform_minilm=minilm["uniform"]["quality"]["cosine"],
        spatten_minilm=minilm["spatten"]["quality"]["cosine"],
        worst_with=min(map(cell, WITH_THE_QUESTION)),
        dense_cell=cell("dense"),
        best_before_name=f"`{best_before}`",
        best_before=cell(best_before),
        **{
            f"{name}_recall": gpt[name]["quality"]["recall_accuracy"]
            for name in ("snapkv", "keydiff", "random", "spatten")
        },
        spatten_perplexity=gpt["spatten"]["quality"]["perplexity_ratio"],
        cycles_share=_share(most["cycles"][2], "cycles"),
        cycles_name=most["cycles"][1],
        cycles_model=most["cycles"][0],
        energy_share=_share(most["energy_pj"][2], "energy_pj"),
        energy_name=most["energy_pj"][1],
        energy_model=most["energy_pj"][0],
        worse=sum(row["energy_pj"] > rows[model]["dense"]["energy_pj"] for model, _, row in choosing),
        choosing=len(choosing),
        tome_flops=tome["flops"] / dense["flops"],
        tome_cycles=tome["cycles"] / dense["cycles"],
        tome_select=_share(tome, "cycles"),
        spatten_select=_share(spatten, "cycles"),
    )
    paragraphs = text.split("\n\n")
    return "\n\n".join(textwrap.fill(part, 130, break_on_hyphens=False) for part in paragraphs)


def _share(row: Mapping[str, Any], part: str) -> float:
    return float(row["selection"][part] / row[part])


def _against_baseline(one: Mapping[str, Any]) -> str:
    """How many of the methods that cost at most the best baseline's energy are better than it."""
    from topsieve.leaderboard import BASELINES, goodness

    good = goodness(one)
    baseline = max((row for row in one["rows"] if row["method"] in BASELINES), key=lambda row: good[row["method"]])
    cheap = [row for row in one["rows"] if row["energy_pj"] <= baseline["energy_pj"] and row["method"] not in BASELINES]
    better = sum(good[row["method"]] > good[baseline["method"]] for row in cheap)
    return f"{better} of {len(cheap)} on {one['facts']['model']} (`{baseline['method']}`)"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]
