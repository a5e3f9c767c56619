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
# # Design-space exploration
#
# Which machine for a given work? A sweep runs one trace on many machines: first in closed form, which takes a step a row,
# then the best of them in the cycle model. What is left is a choice between cycles, energy and area that no measurement
# can make for you. `topsieve sweep` does this from a YAML file, on many workers, and goes on where it was stopped.

# %%
import os
import tempfile

import matplotlib.pyplot as plt

from topsieve.exploration.pareto import pareto_front
from topsieve.exploration.spec import SweepSpec
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import run_sweep
from topsieve.plots import MARKERS, PALETTE
from topsieve_sim.arch import load_config
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.trace import load_workload

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it
TRACE = "gpt2-small-wikitext2-pruned"

# %% [markdown]
# ## A space of machines
#
# Latin hypercube: each axis is cut into as many equal parts as there are points, and each part is met once.

# %%
space = {
    "softmax.lanes": [2, 4, 8, 16],
    "dot_product.multipliers": [128, 256, 512],
    "topk.selector": ["quick", "radix"],
    "memory.channels": {"low": 2, "high": 16},
}


def sweep(fields, points, **more):
    """Rows of results by place, of `points` machines around the published one."""
    spec = SweepSpec(
        name="notebook",
        mode="closed-form",
        accelerator="spatten",
        sampling="latin-hypercube",
        points=points,
        workload={"traces": [TRACE]},
        fields=fields,
        **more,
    )
    with tempfile.TemporaryDirectory() as folder:
        done = run_sweep(spec, Store(folder))
    print(f"{len(done.measured)} machines, {len(done.refused)} places that are none, {done.cpu_seconds:.1f} s of CPU")
    return [(dict(item.point.place), item.row) for item in done.measured]


found = sweep(space, points=12 if SMALL else 200)

# %% [markdown]
# ## What no other beats
#
# Three costs: cycles, energy, area. The size of a marker is the area; the filled ones are those that no other machine beats in all three.

# %%
costs = [(row["latency_cycles"], row["energy_pj"], row["area_mm2"]) for _, row in found]
front = pareto_front(costs)
figure, axes = plt.subplots(figsize=(7, 4))
for place, (cycles, energy_pj, area_mm2) in enumerate(costs):
    chosen = place in front
    lanes = space["softmax.lanes"].index(found[place][0]["softmax.lanes"])
    axes.plot(
        cycles,
        energy_pj / 1e6,
        MARKERS[lanes],
        color=PALETTE[lanes],
        markersize=2 + area_mm2 / 3,
        fillstyle="full" if chosen else "none",
        alpha=1.0 if chosen else 0.5,
    )
for lanes, count in enumerate(space["softmax.lanes"]):
    axes.plot([], [], MARKERS[lanes], color=PALETTE[lanes], label=f"{count} lanes")
axes.set_xlabel("cycles, closed form")
axes.set_ylabel("energy (µJ)")
axes.legend(frameon=False)
figure.tight_layout()
plt.show()
print(f"{len(front)} of {len(costs)} machines are on the front")

# %% [markdown]
# ## In the cycle model
#
# The closed form has a stated error; what it picks is checked beat by beat before anyone builds it.

# %%
program = prepare(load_workload(TRACE))
for place in front[:1] if SMALL else front[:5]:
    fields, row = found[place]
    machine = load_config("spatten", [f"{field}={value}" for field, value in fields.items() if field in space])
    report = simulate(program, machine)
    print(
        f"{row['latency_cycles']} cycles estimated, {report.cycles} simulated, {report.area_total_um2 / 1e6:.1f} mm2: {fields}"
    )

# %% [markdown]
# ## Yours
#
# Other axes: any field of the configuration (`topsieve config schema`), as a list or a range. What limits these machines?

# %%
mine = sweep({"memory.channels": [1, 2, 4, 8, 16], "memory.latency_cycles": [20, 200]}, points=4 if SMALL else 20)
for fields, row in sorted(mine, key=lambda item: item[1]["latency_cycles"])[:3]:
    print(row["latency_cycles"], "cycles:", fields)
