"""Power and area rows."""

from __future__ import annotations

import math
from collections.abc import Callable

from topsieve_sim.energy import Action, Component, action_energies_pj, area_um2, load_technology
from topsieve_sim.report import Report
from topsieve_sim.validation.checks import Check, Section, Status
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
    """Power of the traffic that Figure 20 implies, at the technology's energy a bit."""
    return FIGURE_20_TRAFFIC * 8 * action_energies_pj(bench.config)[Component.DRAM, Action.READ_BIT] * 1e-12


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


CELLS = "cells and macros, without wires, clock tree and control; not calibrated"
FITTED_AT = "fitted at the published throughput, 182 GB/s and 12 bits a product; our benchmarks move less, and most of them in 8 bits"
FLOATING = "fixed point with a table, not calibrated; theirs is eight floating-point units at 45 nm"
OTHERS = "importance accumulators only; what else is in theirs is not stated"
POWER_REASONS = {
    "QxK and key buffer": FITTED_AT,
    "Prob x V and value buffer": "BERT selects no values here, so this array works as much as QxK; the published one worked half "
    "as much",
    "softmax": FLOATING,
    "fetcher": FITTED_AT,
    "top-k": CELLS,
    "others": OTHERS,
}
AREA_REASONS = {"softmax": FLOATING, "top-k": CELLS, "others": OTHERS}
# The published numbers that factors of the table `40nm` are fitted to (`topsieve_sim.energy.calibration`).
FITTED = frozenset(entry.fitted_to for entry in load_technology("40nm").calibration)


def _check(
    name: str, unit: str, published: float, compute: Callable[[Workbench], float], source: str, reason: str = ""
) -> Check:
    status = Status.CALIBRATED if name in FITTED else Status.PREDICTED
    return Check(name, unit, published, compute, source, status, reason=reason)


SECTIONS = (
    Section(
        "Power",
        "Average over the 30 benchmarks as in Table II, each run's power counts once: the runs of *Averages over the benchmarks* and "
        "*GPT-2 on the other data sets*. Three factors of the technology `40nm` are fitted, to the rows that say so, from published "
        "numbers alone (docs/energy.md): they are fitted at the published rates, so on our runs these rows are not equal. "
        "Everything else is predicted.",
        (
            _check("logic", "W", 1.36, _mean_watts(_is_logic), "Table II"),
            _check("SRAM", "W", 1.24, _mean_watts(_is_memory), "Table II", FITTED_AT),
            _check(
                "DRAM at 3.92 pJ a bit",
                "W",
                5.71,
                _mean_watts(_is_dram),
                "Table II",
                "the published numbers disagree: 83 operations a byte at 1.61 TFLOPS (Figure 18) are 19 GB/s on BERT, which "
                "with 170 GB/s on GPT-2 makes 1.9 W on average",
            ),
            _check(
                "DRAM at 3.92 pJ a bit and 170 GB/s",
                "W",
                5.71,
                _dram_watts,
                "Table II; the traffic from Figure 20 (specification `accelerator`, 3.6)",
            ),
            _check(
                "total",
                "W",
                8.30,
                _mean_watts(lambda component, action: True),
                "Table II",
                "DRAM, as above",
            ),
            *(
                _check(
                    f"power of {name}",
                    "W",
                    PUBLISHED_POWER_W[name],
                    _module_watts(components),
                    "Table II, Figure 13",
                    POWER_REASONS[name],
                )
                for name, components in MODULES.items()
            ),
            _check(
                "energy of GPT-2-Medium, WikiText-2",
                "mJ",
                22.5,
                lambda bench: bench.report(MEDIUM).energy_total_pj * 1e-9,
                "8.30 W for 2.72 ms (specification `accelerator`, 3.5)",
                "published is the mean power of all benchmarks for this one's time; its 300 GB/s are more than the mean traffic",
            ),
        ),
    ),
    Section(
        "Area",
        "Sum over the configuration with the technology `40nm` (docs/energy.md). Two factors are fitted, to the rows that say so; "
        "9.77 of the 18.71 mm2 are calibrated, the rest is predicted.",
        (
            *(
                _check(
                    f"area of {name}",
                    "mm2",
                    PUBLISHED_AREA_MM2[name],
                    _module_mm2(components),
                    "Table II",
                    AREA_REASONS.get(name, ""),
                )
                for name, components in MODULES.items()
            ),
            _check("area in all", "mm2", 18.71, total_mm2, "Table II"),
        ),
    ),
)
