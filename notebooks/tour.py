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
# # Five-minute tour
#
# A sentence goes through a real model under a reduction method; what the method asked for becomes a trace; the trace runs
# on an accelerator, cycle by cycle. Open this file in Jupyter (with jupytext) or run it as a script.

# %%
import matplotlib.pyplot as plt

import topsieve
from topsieve.pretrained import load_pretrained
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate

TEXT = (
    "The import statement finds a module, loads it and initialises it if necessary, and binds a name in the local "
    "namespace for the scope in which the statement occurs."
)
KEEP = 0.5

minilm = load_pretrained("minilm")
words = minilm.tokens([TEXT])
batch = minilm.batch(words)

# %% [markdown]
# ## One method
#
# `reduce` runs the model under a method and leaves it as it was. The record says what happened in each layer; `lower`
# turns it into operations with the model's own queries, keys and values.

# %%
with topsieve.reduce(minilm.model, "spatten", keep=KEEP, operands=True) as reduced:
    minilm.model(**batch)
trace = topsieve.lower(reduced.record, operands=True)
print([int(layer.attention_tokens[0]) for layer in reduced.record.layers], "tokens enter the layers")
print(len(trace.ops), "operations,", trace.flops, "FLOP")

# %% [markdown]
# ## One machine
#
# The published SpAtten, as a preset. Every cycle of every unit has one cause.

# %%
machine = load_config("spatten")
report = simulate(trace, machine)
print(f"{report.cycles} cycles, {report.dram_bytes_total} bytes from and to memory, {report.energy_total_pj:.3g} pJ")
for row in report.units:
    longest = max(row.stall_cycles, key=row.stall_cycles.get)
    print(f"{row.unit.value:20} busy {row.busy_cycles / report.cycles:6.1%}, else mostly {longest.value}")

# %% [markdown]
# ## Several methods, several machines

# %%
METHODS = ("dense", "random", "spatten", "spatten:value_keep=0.5,quantisation=8+4", "tome", "powerbert")
MACHINES = ("spatten", "topsieve")
cycles: dict[str, list[int]] = {name: [] for name in MACHINES}
for method in METHODS:
    with topsieve.reduce(minilm.model, method, **({} if method == "dense" else {"keep": KEEP}), operands=True) as run:
        minilm.model(**batch)
    lowered = topsieve.lower(run.record, operands=True)
    for name in MACHINES:
        cycles[name].append(simulate(lowered, load_config(name)).cycles)

figure, axes = plt.subplots(figsize=(7, 3))
for offset, name in enumerate(MACHINES):
    axes.barh([place + 0.4 * offset for place in range(len(METHODS))], cycles[name], height=0.4, label=name)
axes.set_yticks([place + 0.2 for place in range(len(METHODS))], METHODS)
axes.invert_yaxis()
axes.set_xlabel("cycles for one sentence")
axes.legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Yours
#
# Change `TEXT`, `KEEP` or a field of the machine, and run again. `topsieve methods` lists the methods.

# %%
narrow = load_config("topsieve", ["softmax.lanes=8"])
print(
    f"half the lanes: {simulate(trace, narrow).cycles / simulate(trace, load_config('topsieve')).cycles:.2f} x the cycles"
)
