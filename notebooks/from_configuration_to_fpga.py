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
# # From a configuration to an FPGA
#
# The same configuration that the simulator runs becomes hardware: a unit is checked against its models on the RTL, its
# waveform is drawn, it leaves as Verilog, and its size on real FPGAs is known.

# %%
import os
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import topsieve
from topsieve.plots import PALETTE
from topsieve_rtl.cosim import first_divergence
from topsieve_rtl.cosim.cases import decoded
from topsieve_rtl.cosim.python_engine import run_python
from topsieve_rtl.units.registry import find_unit
from topsieve_rtl.verilog.package import emit_unit
from topsieve_sim.arch import load_config

SMALL = "TOPSIEVE_SMALL_NOTEBOOKS" in os.environ  # as the tests run it
UNIT = "token_importance" if SMALL else "topk"

config = load_config("tiny")
unit = find_unit(UNIT)
print(f"{UNIT} of {config.name}, digest {config.digest}: {unit.summary}")

# %% [markdown]
# ## Models and hardware, side by side
#
# A random case with stalls on both sides. The timing function says the cycle of every beat, Amaranth's simulator runs the
# hardware description, and both are compared beat by beat. `topsieve verify` does this a few hundred times on compiled RTL.

# %%
design = unit.design(config)
case = unit.draw(config, np.random.default_rng(3))
with tempfile.TemporaryDirectory() as folder:
    waveform = Path(folder) / "run.vcd"
    (raw,) = run_python(design, [case.raw(design)], waveform=waveform)
    recorded = waveform.read_text()
log = decoded(design, case, raw)
assert first_divergence(unit.expect(config, case), log.channels) is None
for name, channel in log.channels.items():
    print(
        f"port {name}: {len(channel.beats)} beats, as predicted; the last in cycle {channel.cycles[-1]} of {log.cycles} cycles"
    )

# %% [markdown]
# ## The waveform
#
# The handshakes of the ports, from the recording. A beat crosses in a cycle in which both lines of a port are high.


# %%
def levels(recording, wanted):
    """By signal name, its level in each clock cycle; of signals of one name, the outermost."""
    head, _, body = recording.partition("$dumpvars")
    names = {}
    for code, name in re.findall(r"\$var wire 1 (\S+) (\S+) \$end", head):
        if re.fullmatch(wanted, name) and name not in names.values():
            names[code] = name
    now, found = 0, {name: {} for name in names.values()}
    for line in body.splitlines():
        if line.startswith("#"):
            # What an edge changes is the next cycle's; the first edge comes after half a period.
            now = (int(line[1:]) + PERIOD_FEMTOSECONDS // 2) // PERIOD_FEMTOSECONDS
        elif line[:1] in ("0", "1") and line[1:] in names:
            found[names[line[1:]]][now] = int(line[0])
    for name, seen in found.items():
        level, filled = 0, []
        for cycle in range(now + 1):
            level = seen.get(cycle, level)
            filled.append(level)
        found[name] = filled
    return found


PERIOD_FEMTOSECONDS = 10**6
signals = levels(recorded, f"({'|'.join(log.channels)})__(valid|ready)")
for name, channel in log.channels.items():
    both = zip(signals[f"{name}__valid"], signals[f"{name}__ready"], strict=True)
    crossed = [cycle for cycle, (valid, ready) in enumerate(both) if valid and ready]
    assert crossed == list(channel.cycles)

shown = 100
figure, axes = plt.subplots(figsize=(9, 0.5 * len(signals) + 1))
for place, (name, line) in enumerate(sorted(signals.items(), reverse=True)):
    heights = [1.4 * place + level for level in line[:shown]]
    axes.step(range(len(heights)), heights, where="post", color=PALETTE[0 if name.endswith("valid") else 1])
axes.set_yticks([1.4 * place + 0.5 for place in range(len(signals))], sorted(signals, reverse=True))
axes.set_xlabel("clock cycles")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Verilog
#
# A folder that needs no Python: one Verilog file, a testbench with vectors from the models, a core file, the register names.

# %%
with tempfile.TemporaryDirectory() as folder:
    package = emit_unit(UNIT, config, folder, command_line=f"topsieve verilog {UNIT}", cases=2)
    for path in package.files:
        print(f"{path.relative_to(folder)!s:40} {path.stat().st_size:8} bytes")
    verilog = next(path for path in package.files if path.suffix == ".v").read_text()
print(re.search(r"^module .*?;", verilog, re.MULTILINE | re.DOTALL)[0])

# %% [markdown]
# ## Size
#
# What the FPGA page holds of the top-k engine: placed and routed on ECP5, counted by yosys for the others.

# %%
page = (Path(topsieve.__file__).parents[2] / "docs" / "resources.md").read_text()
for line in page.splitlines():
    if line.startswith(("| unit", "| topk |")):
        print(line)

# %% [markdown]
# ## Yours
#
# Another machine, another unit (`topsieve verify` lists them), another case: the assertion holds, or it tells the cycle.
# `topsieve synth UNIT --set ...` then measures its size.

# %%
MY_UNIT, MY_CONFIG = "topk", load_config("tiny", ["topk.parallelism=8"])
mine = find_unit(MY_UNIT)
my_case = mine.draw(MY_CONFIG, np.random.default_rng(1))
my_design = mine.design(MY_CONFIG)
(raw,) = run_python(my_design, [my_case.raw(my_design)])
replayed = decoded(my_design, my_case, raw)
assert first_divergence(mine.expect(MY_CONFIG, my_case), replayed.channels) is None
print(f"{MY_UNIT}, changed: equal to its models in all of {replayed.cycles} cycles")
