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
# # The accelerator beside rivals and GPUs
#
# One trace on this accelerator, on published rivals at equal multipliers and bandwidth, under the rooflines of GPUs, and
# beside one GPU. Rooflines are bounds from data sheets: no real run is faster, most are far slower. A GPU's time is either
# such a bound or comes from a file of `make gpu-bench`, and is marked as what it is.

# %%
import os

import matplotlib.pyplot as plt

import topsieve
from topsieve.corpus import python_reference
from topsieve.explain import peaks
from topsieve.gpu import gpu_cost, gpu_work, load_gpu
from topsieve.measure import machine_bits
from topsieve.plots import MARKERS, PALETTE
from topsieve.pretrained import load_pretrained
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.rivals import build_all, compare, load_platform
from topsieve_sim.trace import load_workload

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it
MACHINE = load_config("spatten-eighth")

minilm = load_pretrained("minilm")
batch = minilm.batch(minilm.tokens(python_reference(1).paragraphs))
with topsieve.reduce(minilm.model, "dense", operands=True) as reduced:
    minilm.model(**batch)
trace = topsieve.lower(reduced.record, operands=True, bits=machine_bits(MACHINE))

# %% [markdown]
# ## Rivals: speed means nothing without the error
#
# All read the same operands, rounded to the same integers, and run their own algorithm on them.

# %%
names = ["systolic", "mnnfast"] if SMALL else ["systolic", "a3", "mnnfast", "elsa", "sanger", "token_picker"]
comparison = compare(trace, MACHINE, build_all(names))
for row in comparison.rows:
    energy = "" if row.energy_pj is None else f"{row.energy_pj / 1e6:6.2f} uJ"
    print(f"{row.machine:16} {row.cycles:8} cycles {row.latency_us:7.1f} us {energy} error {row.output_error:7.2%}")

figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for place, row in enumerate(comparison.rows):
    style = {"color": PALETTE[place % len(PALETTE)], "markersize": 8, "label": row.machine}
    panels[0].plot(row.latency_us, row.output_error, MARKERS[place % len(MARKERS)], **style)
    panels[1].plot(row.energy_pj / 1e6, row.output_error, MARKERS[place % len(MARKERS)], **style)
panels[0].set_yscale("log")
panels[0].set_ylabel("error of the outputs")
panels[0].set_xlabel("latency (µs)")
panels[1].set_xlabel("energy (µJ), dynamic")
panels[1].legend(frameon=False, fontsize=7)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Rooflines, analytical
#
# Generating text with GPT-2 reads every key and value once for each token: about one operation a byte, far left of any
# bend. There bandwidth decides, and what is not read is won. The traces are the published ones of the SpAtten authors.

# %%
workloads = ("pruned",) if SMALL else ("dense", "pruned")
reports = {name: simulate(load_workload(f"gpt2-small-wikitext2-{name}"), load_config("spatten")) for name in workloads}
figure, axes = plt.subplots(figsize=(7, 4))
intensities = [2.0**power for power in range(-3, 12)]
roofs = {"spatten": peaks(next(iter(reports.values())))}
for name in ("titan-xp", "a100-sxm-40gb", "h100-sxm"):
    platform = load_platform(name)
    roofs[name] = (platform.peak_gflops.value / 1e3, platform.bandwidth_gb_per_s.value / 1e3)
for colour, (name, (peak_tflops, bandwidth_tb_s)) in zip(PALETTE, roofs.items(), strict=False):
    line = [min(peak_tflops, intensity * bandwidth_tb_s) for intensity in intensities]
    axes.loglog(intensities, line, color=colour, label=f"{name}, bound")
for marker, (name, report) in zip(MARKERS, reports.items(), strict=False):
    intensity = report.attention_flops / report.dram_bytes_total
    axes.loglog(intensity, report.attention_tflops, marker, color="black", label=f"spatten, GPT-2 {name}, simulated")
    print(f"{name}: {report.cycles} cycles, {report.attention_tflops:.2f} TFLOPS at {intensity:.2f} FLOP a byte")
axes.set_xlabel("operations a byte of DRAM")
axes.set_ylabel("TFLOPS")
axes.legend(frameon=False, fontsize=7)
figure.tight_layout()
plt.show()

# %% [markdown]
# The published machine stores GPT-2's operands in fewer bits than a GPU does, so the same work stands further right for it:
# compare bounds with bounds, and a simulated point with its own roof.
#
# ## The same operations on a GPU
#
# `gpu_cost` is what `topsieve compare --gpu` calls: each operation in its measured time where the newest committed file of
# `make gpu-bench` holds the shape, else in the roofline's. The GPU works in its own 16 bits, on one sequence, as the
# accelerator does. A bound counts no launches (microseconds each), and its energy is the most that the board may draw for
# that time: read hatched bars as "at least" for the time, and as an order of magnitude for the energy.

# %%
gpu = load_gpu()
pairs = {"MiniLM": (trace, simulate(trace, MACHINE))}
pairs |= {f"GPT-2 {name}": (load_workload(f"gpt2-small-wikitext2-{name}"), report) for name, report in reports.items()}
costs = {name: gpu_cost(gpu_work(work), gpu) for name, (work, _) in pairs.items()}
for name, (_, report) in pairs.items():
    cost = costs[name].summary(report.latency_us, report.energy_total_pj)
    print(
        f"{name:12} {report.accelerator.name} {report.latency_us:9.1f} us {report.energy_total_pj / 1e6:8.1f} uJ; "
        f"{gpu.platform.title} {cost['time_us']:8.2f} us ({cost['source']}) {cost['energy_uj'] or float('nan'):9.1f} uJ "
        f"({cost['power_source']} power), {cost['measured_share']:.0%} of {cost['calls']} calls measured"
    )

figure, panels = plt.subplots(1, 2, figsize=(9, 3.2))
places = range(len(pairs))
own = [(report.latency_us, report.energy_total_pj / 1e6) for _, report in pairs.values()]
for axes, number, unit in zip(panels, (0, 1), ("latency (µs)", "energy (µJ)"), strict=True):
    axes.bar(
        [place - 0.2 for place in places], [both[number] for both in own], 0.36, color=PALETTE[0], label="accelerator"
    )
    for place, cost in zip(places, costs.values(), strict=True):
        value = (cost.time_us, cost.energy_uj)[number]
        if value is not None:
            hatch = None if (cost.source, cost.power)[number] == "measured" else "///"
            axes.bar(place + 0.2, value, 0.36, color=PALETTE[1], hatch=hatch, edgecolor="white")
    axes.set_yscale("log")
    axes.set_xticks(places, list(pairs))
    axes.set_ylabel(unit)
panels[0].bar(0, 0, color=PALETTE[1], label=gpu.platform.title)
panels[0].bar(0, 0, color=PALETTE[1], hatch="///", edgecolor="white", label="the same, not measured")
panels[0].legend(frameon=False, fontsize=7, loc="upper right")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Yours
#
# Give a rival another knob (`topsieve rivals --list` shows them), this machine half the memory, or the comparison another GPU:
# a data sheet's name, or your own file of `make gpu-bench`.

# %%
KNOB = "mnnfast:threshold=0.02"
half = load_config("spatten-eighth", ["memory.channels=1"])
mine, rival = compare(trace, half, build_all([KNOB])).rows
print(
    f"with {half.memory.bytes_per_cycle} bytes a cycle: {mine.cycles} cycles; {KNOB}: {rival.cycles}, error {rival.output_error:.2%}"
)
other = gpu_cost(gpu_work(trace), load_gpu("titan-xp"))
print(
    f"{other.gpu.platform.title}: {other.time_us:.2f} us ({other.source}), {other.energy_uj:.0f} uJ ({other.power} power)"
)
