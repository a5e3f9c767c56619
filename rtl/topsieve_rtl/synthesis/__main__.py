"""`python -m topsieve_rtl.synthesis FILE`: measure units and machines and write the resource page."""

import sys

from topsieve_rtl.synthesis.parts import attention_core
from topsieve_rtl.synthesis.place import Placement
from topsieve_rtl.synthesis.report import Build, write_resources
from topsieve_rtl.synthesis.synthesise import Target
from topsieve_sim.arch import SelectorKind

LARGE = (Target.ECP5, Target.XC7, Target.XCUP)
UNITS = (
    "dot_product",
    "softmax",
    "value_selection",
    "weighted_sum",
    "token_importance",
    "head_importance",
    "plane_fetcher",
)
# SpAtten-1/8 as it can be built: its operands come through AXI4 ports. The arrays have 64 + 64 multipliers.
EIGHTH = ("spatten-eighth", ("memory.model=axi",), (Target.XCUP,), None)
# Machines are placed for the clock of a board, not for the highest of a unit alone; placements differ by a fifth with the seed.
BOARD = Placement(seed=3, clock_mhz=50.0)
MACHINE = (*((preset, (), LARGE, BOARD) for preset in ("tiny", "ecp5")), EIGHTH)

SECTIONS = {
    # The tiny engine everywhere; on the FPGA preset, the three selectors side by side; of the machines that are meant for
    # larger devices, estimates.
    "Top-k engine": (
        Build("topk", "tiny"),
        *(
            Build("topk", "ecp5", (f"topk.selector={kind.value}", "topk.parallelism=8"), (Target.ECP5, Target.XC7))
            for kind in SelectorKind
        ),
        *(Build("topk", preset, targets=(Target.XCUP,)) for preset in ("spatten-eighth", "spatten", "topsieve")),
    ),
    "Units": tuple(Build(unit, preset, targets=LARGE, placement=None) for unit in UNITS for preset in ("tiny", "ecp5")),
    "The machine and its attention core": tuple(
        Build(unit, preset, overrides, targets, placement if unit == "accelerator" else None)
        for unit in ("accelerator", attention_core())
        for preset, overrides, targets, placement in MACHINE
    ),
}

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m topsieve_rtl.synthesis FILE")
    write_resources(sys.argv[1], SECTIONS, progress=lambda line: print(line, flush=True))
