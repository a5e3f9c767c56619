# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Methods compared on four models
#
# `make leaderboard` measures every method on the four models of this package. Here its results are read, plotted and
# questioned; then one comparison is run afresh.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import topsieve
from topsieve.compare import Question, compare
from topsieve.leaderboard import BASELINES, FOLDER, fronts, goodness, load_measured, ranking_metric
from topsieve.plots import PALETTE
from topsieve.subjects.subject import Inputs
from topsieve_sim.arch import load_config

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it

measured = load_measured(Path(topsieve.__file__).parents[2] / "docs" / FOLDER)
for one in measured:
    facts = one["facts"]
    print(
        f"{facts['model']:12} keep {facts['keep']}: {len(one['rows'])} methods ran, {len(one['refused'])} do not apply"
    )

# %% [markdown]
# ## Quality against energy
#
# A method in the shadow of another (less energy and no worse) is light. The squares look at nothing before they choose:
# what does not beat them pays for a choice that chance makes as well.

# %%
figure, panels = plt.subplots(2, 2, figsize=(9, 7))
for axes, one in zip(panels.flat, measured, strict=True):
    metric, front = ranking_metric(one), fronts(one)["energy_pj"]
    for row in one["rows"]:
        name = row["method"]
        colour = PALETTE[1] if name in BASELINES else PALETTE[0] if name in front else "#BBBBBB"
        marker = "*" if name == "dense" else "s" if name in BASELINES else "o"
        axes.plot(row["energy_pj"] / 1e6, row["quality"][metric["name"]], marker, color=colour)
        if name in front or name == "dense":
            axes.annotate(name, (row["energy_pj"] / 1e6, row["quality"][metric["name"]]), fontsize=6)
    if metric["lower"]:
        axes.invert_yaxis()
    axes.set_title(one["facts"]["model"])
    axes.set_xlabel("energy (µJ)")
    axes.set_ylabel(metric["title"])
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What the choice itself costs
#
# Cycles that only score, choose and merge, as a share of all cycles: the five most expensive choices of each model, and
# whether they beat a choice at random.

# %%
for one in measured:
    good = goodness(one)
    print(one["facts"]["model"])
    rows = sorted(one["rows"], key=lambda row: -row["selection"]["cycles"] / row["cycles"])
    for row in rows[:5]:
        better = "better" if good[row["method"]] > good["random"] else "not better"
        share = row["selection"]["cycles"] / row["cycles"]
        print(f"  {row['method']:20} {share:6.1%} of the cycles choose; {better} than random")

# %% [markdown]
# ## Yours
#
# Change the methods, `KEEP` or the machine, and run again.

# %%
METHODS = ("dense", "uniform", "evit") if SMALL else ("dense", "uniform", "random", "evit", "ats", "tome", "spatten")
KEEP = 0.3
MACHINE = load_config("topsieve")

with tempfile.TemporaryDirectory() as folder:
    outcome = compare(Question("digits-vit", METHODS, KEEP, MACHINE, Inputs(sequences=1)), folder)
for result in outcome.results:
    hardware = result["hardware"]
    print(
        f"{result['method']:8} accuracy {result['fidelity']['accuracy']:.3f}, {hardware['cycles']:6} cycles, "
        f"{hardware['energy_pj'] / 1e6:5.2f} uJ, choosing takes {hardware['selection']['cycles'] / hardware['cycles']:.1%}"
    )
