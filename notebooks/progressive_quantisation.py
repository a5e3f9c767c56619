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
# # Progressive quantisation on real attention rows
#
# The machine first reads the most significant bits of the keys. A row whose largest probability stays under a threshold is
# computed once more with the rest. What is saved, and what is lost? The rows are MiniLM's own, over paragraphs of English.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import topsieve
from topsieve.bit_plans import CAPACITY, exact_probabilities, measure, minilm_operands
from topsieve.corpus import python_reference
from topsieve.plots import PALETTE
from topsieve.pretrained import load_pretrained
from topsieve_sim.arch import load_config
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.engine import simulate
from topsieve_sim.golden.attention import attention, quantise_operands

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it

operands = minilm_operands(paragraphs=1 if SMALL else 4)
print(len(operands), "attention layers of", operands[0].query.shape, "(heads, tokens, channels)")

# %% [markdown]
# ## Row by row
#
# Each point is a row of one layer, computed from the MSBs alone. The rule expects trouble on the left of the line, where no
# key stands out; there the LSBs are fetched.

# %%
LSB_BITS, THRESHOLD = 4, 0.1
formats = NumberFormats(key_msb_bits=6, key_lsb_bits=LSB_BITS)
layer = operands[len(operands) // 2]
first_pass = attention(quantise_operands(*layer, formats), formats, CAPACITY, 1)
probability = first_pass.probability / 2.0**formats.probability_bits
exact = exact_probabilities(layer)
error = np.linalg.norm(probability - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
largest = exact.max(-1)

figure, axes = plt.subplots(figsize=(6, 3))
axes.loglog(largest.ravel(), error.ravel(), ".", color=PALETTE[0], markersize=3)
axes.axvline(THRESHOLD, color=PALETTE[1])
axes.set_xlabel("largest probability of the row")
axes.set_ylabel("error from the MSBs alone")
figure.tight_layout()
plt.show()
print(f"{np.mean(largest < THRESHOLD):.0%} of the rows are under the threshold")

# %% [markdown]
# ## Error against bits saved
#
# A threshold is a point on a curve: a small one repeats few rows, 1 repeats all. The error is that of the attention outputs over all
# rows, relative to float64.

# %%
THRESHOLDS = (0.02, 0.2, 1.0) if SMALL else (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
figure, axes = plt.subplots(figsize=(6, 3))
for colour, (msb, lsb) in zip(PALETTE, ((4, 4), (6, 4), (8, 4)), strict=False):
    found = [measure((msb, lsb), operands, threshold) for threshold in THRESHOLDS]
    saved = [(1 - one.repeated) * lsb / (msb + lsb) for one in found]
    axes.plot(saved, [one.progressive.output for one in found], "o-", color=colour, label=f"{msb}+{lsb} bits")
    for threshold, share, one in zip(THRESHOLDS, saved, found, strict=True):
        print(
            f"{msb}+{lsb}: threshold {threshold:5}: {share:5.1%} of the key bits saved, error {one.progressive.output:.2%}"
        )
axes.set_yscale("log")
axes.set_xlabel("share of a row's key bits that is not read")
axes.set_ylabel("error of the outputs")
axes.legend(frameon=False)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## On the machine
#
# A plane is fetched for a head, so one unsure row of a head fetches for all: bytes fall later than rows do, and every
# repeated row costs cycles again.

# %%
minilm = load_pretrained("minilm")
batch = minilm.batch(minilm.tokens(python_reference(1).paragraphs))
machine = load_config("spatten")
for threshold in (0.02, 0.1, 1.0):
    method = f"spatten:quantisation=8+4,lsb_threshold={threshold}"
    with topsieve.reduce(minilm.model, method, keep=0.5, operands=True) as reduced:
        minilm.model(**batch)
    report = simulate(topsieve.lower(reduced.record, operands=True), machine)
    keys = sum(size for kind, size in report.dram_bytes.items() if kind.value.startswith("key"))
    share = report.lsb_rows / report.query_rows
    print(f"threshold {threshold}: {share:4.0%} of the rows repeated, {report.cycles} cycles, {keys} bytes of keys")

# %% [markdown]
# ## Yours
#
# Change the planes, the threshold or the text, and run again.

# %%
PLAN, MY_THRESHOLD = (7, 3), 0.15
mine = measure(PLAN, operands, MY_THRESHOLD)
print(f"{PLAN[0]}+{PLAN[1]} at {MY_THRESHOLD}: {mine.repeated:.0%} repeated, error {mine.progressive.output:.2%}")
