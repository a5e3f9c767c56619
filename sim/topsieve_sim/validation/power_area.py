"""Power and area rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from topsieve_sim.energy import Action, Component, area_um2, load_technology
from topsieve_sim.report import Report
from topsieve_sim.validation.checks import Check, Section
from topsieve_sim.validation.workbench import ALL_BENCHMARKS, MEDIUM, Workbench

# The paper's modules and the components of ours that make them up.
MODULES: dict[str, tuple[Component, ...]] = {
    "QxK and key buffer": (Component.DOT_PRODUCT, Component.KEY_BUFFER),
    "Prob x V and value buffer": (Component.WEIGHTED_SUM, Component.VALUE_BUFFER),
    "softmax": (Component.SOFTMAX,),
    "fetcher": (Component.FETCHER,),
    "top-k": (Component.VALUE_TOPK, Component.CASCADE_TOPK),
    "others": (Component.IMPORTANCE,),
}
PUBLISHED_AREA_MM2 = dict(zip(MODULES, (7.12, 7.22, 0.79, 2.65, 0.50, 0.43), strict=True))
PUBLISHED_POWER_W = dict(zip(MODULES, (1.13, 0.53, 0.50, 0.24, 0.08, 0.12), strict=True))
# On-chip actions that are accesses of a memory; the others are logic.
MEMORY_ACTIONS = frozenset({Action.READ_BIT, Action.WRITE_BIT, Action.TRANSFER_BIT, Action.LEAK_CYCLE})

# Bytes a second that the speed-up and the reductions of GPT-2 imply together.
FIGURE_20_TRAFFIC = 170e9

Share = Callable[[str, str], bool]


def watts(report: Report, counted: Share) -> float:
    """Average power of the (component, action) pairs that `counted` takes."""
    energy_pj = math.fsum(
        value
        for component, actions in report.energy_pj.items()
        for action, value in actions.items()
        if counted(component, action)
    )
    return energy_pj / report.latency_us * 1e-6


def _mean_watts(counted: Share) -> Callable[[Workbench], float]:
    return lambda bench: sum(watts(bench.report(name), counted) for name in ALL_BENCHMARKS) / len(ALL_BENCHMARKS)


def _dram_watts(bench: Workbench) -> float:
    """Power of the traffic that Figure 20 implies, at the technology table's energy a bit."""
    return FIGURE_20_TRAFFIC * 8 * load_technology(bench.config.technology).value("dram", "access", 1) * 1e-12


def _is_dram(component: str, action: str) -> bool:
    return component == Component.DRAM


def _is_memory(component: str, action: str) -> bool:
    return component != Component.DRAM and action in MEMORY_ACTIONS


def _is_logic(component: str, action: str) -> bool:
    return component != Component.DRAM and action not in MEMORY_ACTIONS


def _module_watts(components: tuple[Component, ...]) -> Callable[[Workbench], float]:
    return _mean_watts(lambda component, action: component in components)


def _module_mm2(components: tuple[Component, ...]) -> Callable[[Workbench], float]:
    return lambda bench: sum(area_um2(bench.config)[component] for component in components) / 1e6


def total_mm2(bench: Workbench) -> float:
    """Area of the whole machine."""
    return math.fsum(area_um2(bench.config).values()) / 1e6


CELLS = "cells and macros only: no wires, clock tree, crossbar, control or wide-port overhead"
POWER_REASONS = {
    "QxK and key buffer": f"{CELLS}; the benchmark mix is ours",
    "Prob x V and value buffer": "nothing is pruned in our BERT runs, so this array works as much as QxK; pruning kept the "
    "published one less busy",
    "softmax": "fixed point with a table; theirs is eight floating-point units at 45 nm",
    "fetcher": "the two FIFOs are counted, the crossbars are not; the traffic follows our mix",
    "top-k": CELLS,
    "others": "importance accumulators only; what else is in theirs is not stated",
}
AREA_REASONS = {
    **dict.fromkeys(MODULES, CELLS),
    "softmax": POWER_REASONS["softmax"],
    "fetcher": "FIFO macros only, the 32 x 16 crossbars have no row in any table",
    "others": POWER_REASONS["others"],
}

SECTIONS = (
    Section(
        "Power",
        "Average over 30 benchmarks as in Table II: the 22 BERT benchmarks above, and the WikiText-2 traces four times each for the "
        "eight GPT-2 benchmarks. Each run's power counts once. The mix decides as much as the energies: a row that agrees may do so by the mix. Energies of "
        "primitives are cited (docs/energy.md), none was fitted to "
        "a power of this machine.",
        (
            Check("logic", "W", 1.36, _mean_watts(_is_logic), "Table II"),
            Check("SRAM", "W", 1.24, _mean_watts(_is_memory), "Table II", reason=CELLS),
            Check(
                "DRAM at 3.92 pJ a bit",
                "W",
                5.71,
                _mean_watts(_is_dram),
                "Table II",
                reason="follows the traffic: 22 of the 30 benchmarks are unpruned BERT runs with lengths from memory, which reuse "
                "each key and value once a query",
            ),
            Check(
                "DRAM at 3.92 pJ a bit and 170 GB/s",
                "W",
                5.71,
                _dram_watts,
                "Table II; the traffic from Figure 20 (specification `accelerator`, 3.6)",
            ),
            Check(
                "total",
                "W",
                8.30,
                _mean_watts(lambda component, action: True),
                "Table II",
                reason="logic, SRAM and DRAM of our mix together",
            ),
            *(
                Check(
                    f"power of {name}",
                    "W",
                    PUBLISHED_POWER_W[name],
                    _module_watts(components),
                    "Table II, Figure 13",
                    reason=POWER_REASONS[name],
                )
                for name, components in MODULES.items()
            ),
            Check(
                "energy of GPT-2-Medium, WikiText-2",
                "mJ",
                22.5,
                lambda bench: bench.report(MEDIUM).energy_total_pj * 1e-9,
                "8.30 W for 2.72 ms (specification `accelerator`, 3.5)",
            ),
        ),
    ),
    Section(
        "Area",
        "Sum over the configuration with the 40 nm table (docs/energy.md); no constant was fitted to an area of this machine.",
        (
            *(
                Check(
                    f"area of {name}",
                    "mm2",
                    PUBLISHED_AREA_MM2[name],
                    _module_mm2(components),
                    "Table II",
                    reason=AREA_REASONS[name],
                )
                for name, components in MODULES.items()
            ),
            Check("area in all", "mm2", 18.71, total_mm2, "Table II", reason=CELLS),
        ),
    ),
)
