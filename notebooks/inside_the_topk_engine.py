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
# # Inside the top-k engine
#
# Three ways to find the k-th largest score in hardware: quick-select (SpAtten's), radix select and a merge sorter. How many
# cycles they take, what they cost in logic, and one run of the engine beat by beat, once as computed and once replayed on
# the RTL. [The page on the engine](../docs/topk-engine.md) says how each works.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import topsieve
from topsieve.plots import HATCHES, PALETTE
from topsieve.selector_chart import mean_cycles, measured_luts
from topsieve_rtl.cosim import Case, Design, Engine, first_divergence, run
from topsieve_rtl.units.registry import find_unit
from topsieve_rtl.units.topk import engine_inputs, engine_times
from topsieve_sim.arch import load_config
from topsieve_sim.golden.topk import SELECTOR_CODES, top_k
from topsieve_sim.golden.topk_select import quick_select

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it
DRAWS = 20 if SMALL else 200
SELECTORS = tuple(SELECTOR_CODES)

# %% [markdown]
# ## Cycles and area
#
# Means over uniform random 12-bit scores, k = n/2, 16 lanes. The areas are placed and routed ones of the FPGA page.

# %%
luts = measured_luts(Path(topsieve.__file__).parents[2] / "docs" / "resources.md")
sizes = (64, 256, 1024)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
for place, (selector, colour) in enumerate(zip(SELECTORS, PALETTE, strict=False)):
    cycles = [mean_cycles(selector, n, n // 2, 16, DRAWS) for n in sizes]
    left.plot(sizes, cycles, "o-", color=colour, label=selector)
    right.bar(selector, luts[selector], color=colour, hatch=HATCHES[place])
    print(f"{selector:8}", ", ".join(f"{value:.0f} cycles for {n}" for n, value in zip(sizes, cycles, strict=True)))
left.set_xlabel("scores")
left.set_ylabel("cycles of a selection")
left.legend(frameon=False)
right.set_ylabel("LUTs on ECP5 (P = 8)")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## The rounds of a quick-select
#
# Each round streams what is left past a pivot and keeps one side. The pivot is drawn, so the number of rounds depends on the
# scores; the other two take the same time for all scores of a length.

# %%
generator = np.random.default_rng(7)
scores = generator.integers(0, 1 << 12, 512)
rounds = np.zeros((32, 3), np.int64)
cycles, kth, quota, count = quick_select(scores, 128, 16, 0xACE1, rounds)
print(f"{count} rounds, {cycles} cycles; the 128th largest is {kth}, {quota} of its equals stay")
figure, axes = plt.subplots(figsize=(8, 2.4))
for number, (first, last, size) in enumerate(rounds[:count].tolist()):
    axes.barh(0, last - first + 1, left=first, color=PALETTE[number % 2], edgecolor="white")
    axes.text(first, 0.5, str(size), fontsize=7)
axes.set_yticks([])
axes.set_xlabel("cycles after the command; above each round, the scores it looks at")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## A run, replayed on the hardware
#
# One packet into the engine of the `tiny` machine. The timing function says in which cycle each beat crosses; Amaranth's
# simulator runs the hardware description on the same beats; the two must agree, and the survivors must be the k largest.


# %%
def packet(scores, k, lanes):
    """Load beats of one packet: the scores of a row, how many they are, whether it is the last, and k."""
    rows = [scores[start : start + lanes] for start in range(0, len(scores), lanes)]
    return [((*row, *[0] * (lanes - len(row))), len(row), int(row is rows[-1]), k) for row in rows]


def replay(config, scores, k, pauses):
    """Cycles of the beats by the timing function and by the RTL, and the survivors' indices."""
    unit = find_unit("topk")
    beats = packet(scores, k, config.topk.parallelism)
    arrivals = [beat + pauses * (beat // 2) for beat in range(len(beats))]
    outputs = len(engine_times(config, engine_inputs(config, Case.through(beats, arrivals, [], 1))).left)
    case = Case.through(beats, arrivals, [], outputs)
    expected = unit.expect(config, case)
    (log,) = run(Design(unit.component(config), "topk"), [case], Engine.PYTHON)
    assert first_divergence(expected, log.channels) is None
    return expected, log


tiny = load_config("tiny")
drawn = generator.integers(0, 1 << tiny.formats.probability_bits, 22).tolist()
expected, log = replay(tiny, drawn, 7, pauses=2)
kept = top_k(drawn, 7)
print("kept:", kept.tolist())
for port in ("i", "o"):
    print(f"port {port}: cycles {log.channels[port].cycles} in the RTL, {list(expected[port].cycles)} computed")

# %% [markdown]
# ## Yours
#
# Another selector, more lanes, all scores equal: change them and run again. The assertion in `replay` keeps comparing.

# %%
mine = load_config("tiny", ["topk.selector=radix"])
equal, again = replay(mine, [5] * 22, 7, pauses=0)
print(f"radix select, all equal: the last survivor leaves after {again.channels['o'].cycles[-1]} cycles")
