"""`python -m topsieve_rtl.synthesis FILE`: measure the units and write the resource page."""

import sys

from topsieve_rtl.synthesis.report import Build, write_resources
from topsieve_rtl.synthesis.synthesise import Target
from topsieve_sim.arch import SelectorKind

# The tiny machine everywhere; on the FPGA preset, the three selectors side by side; of the machines that are meant for
# larger devices, estimates.
BUILDS = (
    Build("topk", "tiny"),
    *(Build("topk", "ecp5", (f"topk.selector={kind.value}",), (Target.ECP5, Target.XC7)) for kind in SelectorKind),
    *(Build("topk", preset, targets=(Target.XCUP,)) for preset in ("spatten-eighth", "spatten", "topsieve")),
)

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m topsieve_rtl.synthesis FILE")
    write_resources(sys.argv[1], BUILDS, progress=lambda line: print(line, flush=True))
