"""Rows of SpAtten-1/8, the machine of Table III, and what that table needs beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable

from topsieve_sim.arch import load_config
from topsieve_sim.energy import area_um2
from topsieve_sim.validation.checks import Check, Section, Unmodelled
from topsieve_sim.validation.workbench import (
    ALL_BENCHMARKS,
    ALL_DENSE,
    BERT_BENCHMARKS,
    MEDIUM,
    MEDIUM_FULL,
    PRUNED_BERT,
    SMALL,
    SMALL_DENSE,
    Workbench,
)

MACHINE = "spatten-eighth"
# Runs of the machine and the dense workload that its throughput is stated in.
BERT_RUNS = tuple(zip(PRUNED_BERT, BERT_BENCHMARKS, strict=True))
ALL_RUNS = tuple(zip(ALL_BENCHMARKS, ALL_DENSE, strict=True))


def dense_gops(bench: Workbench, workload: str, dense: str) -> float:
    """Dense-equivalent throughput: operations of the dense workload over the latency of the pruned one."""
    report = bench.report_on(load_config(MACHINE), workload)
    return bench.program(dense).trace.attention_flops / report.latency_us * 1e-3


def dense_gop_per_joule(bench: Workbench, workload: str, dense: str) -> float:
    """Dense-equivalent operations a joule, DRAM included."""
    report = bench.report_on(load_config(MACHINE), workload)
    return bench.program(dense).trace.attention_flops / report.energy_total_pj * 1e3


Measure = Callable[[Workbench, str, str], float]


def _mean(measure: Measure, runs: tuple[tuple[str, str], ...]) -> Callable[[Workbench], float]:
    return lambda bench: sum(measure(bench, *run) for run in runs) / len(runs)


def _area(*overrides: str) -> Callable[[Workbench], float]:
    return lambda bench: math.fsum(area_um2(load_config(MACHINE, overrides)).values()) / 1e6


ASSUMED = "keep ratios of BERT are assumed from averages over 30 benchmarks; which tasks the published mean takes is not stated"
SHARED_DRAM = "the paper adds an eighth of 5.71 W for DRAM to every machine; here DRAM follows the traffic, which BERT has little of"
MEMORY_BOUND = "memory: the 708 MB of this trace alone take 11.1 ms at 64 GB/s, which is 287 GOP/s"
MEMORY_ENERGY = "DRAM: the 708 MB of this trace alone cost 22 mJ at 3.92 pJ a bit, which is 143 GOP/J"

SECTIONS = (
    Section(
        "SpAtten-1/8",
        "64 + 64 multipliers and 64 GB/s (preset `spatten-eighth`, whatever machine the other sections run on). Throughput is "
        "dense-equivalent: operations of the dense benchmark over the time of the pruned one. Which of the 30 benchmarks the "
        "published averages take is not stated, so each mix has a row; BERT is pruned as in *Averages over the benchmarks*.",
        (
            Check(
                "throughput, mean of 30 benchmarks",
                "GOP/s",
                360,
                _mean(dense_gops, ALL_RUNS),
                "Table III",
                decimals=0,
                reason=ASSUMED,
            ),
            Check(
                "throughput, mean of 22 BERT benchmarks",
                "GOP/s",
                360,
                _mean(dense_gops, BERT_RUNS),
                "Table III",
                decimals=0,
                reason=ASSUMED,
            ),
            Check(
                "throughput, GPT-2-Small WikiText-2",
                "GOP/s",
                360,
                _mean(dense_gops, ((SMALL, SMALL_DENSE),)),
                "Table III",
                decimals=0,
            ),
            Check(
                "throughput, GPT-2-Medium WikiText-2",
                "GOP/s",
                360,
                _mean(dense_gops, ((MEDIUM, MEDIUM_FULL),)),
                "Table III",
                decimals=0,
                reason=MEMORY_BOUND,
            ),
            Check(
                "efficiency, mean of 30 benchmarks",
                "GOP/J",
                382,
                _mean(dense_gop_per_joule, ALL_RUNS),
                "Table III",
                decimals=0,
                reason=SHARED_DRAM,
            ),
            Check(
                "efficiency, mean of 22 BERT benchmarks",
                "GOP/J",
                382,
                _mean(dense_gop_per_joule, BERT_RUNS),
                "Table III",
                decimals=0,
                reason=SHARED_DRAM,
            ),
            Check(
                "efficiency, GPT-2-Small WikiText-2",
                "GOP/J",
                382,
                _mean(dense_gop_per_joule, ((SMALL, SMALL_DENSE),)),
                "Table III",
                decimals=0,
            ),
            Check(
                "efficiency, GPT-2-Medium WikiText-2",
                "GOP/J",
                382,
                _mean(dense_gop_per_joule, ((MEDIUM, MEDIUM_FULL),)),
                "Table III",
                decimals=0,
                reason=MEMORY_ENERGY,
            ),
            Check(
                "area of the eighth",
                "mm2",
                1.55,
                _area(),
                "Table III",
                reason="buffers for 1024 tokens as on the whole machine; how far the published one shrank them is not stated",
            ),
            Check(
                "area of the eighth with buffers for 128 tokens",
                "mm2",
                1.55,
                _area("capacity=128"),
                "Table III",
                reason="bare macros of 512 bytes times the factor of the whole machine; small buffers need less around them",
            ),
        ),
    ),
)

UNMODELLED = (
    Unmodelled(
        "gain of A3's approximation, and its area",
        "1.73x on its own tasks; 2.08 mm2; SpAtten-1/8 1.6x faster, 1.4x less energy",
        "Table III, section V-B",
        "operands of those tasks; the area of its memories",
    ),
    Unmodelled(
        "speed-up and energy against CPUs and GPUs",
        "162x / 347x / 1095x / 5071x; 1193x / 4059x / 406x / 1910x",
        "Figure 14",
        "those platforms; their absolute times are published for GPT-2-Medium on TITAN Xp alone, and its rows are above",
    ),
    Unmodelled(
        "GPT-2-Small end to end",
        "31x to 32x with 12-bit and 44x to 47x with 8-bit FC layers over TITAN Xp",
        "Figure 15",
        "the GPU's times, which are not published",
    ),
    Unmodelled(
        "power of quick-select against a full sorter", "3.5x lower", "section IV-C", "synthesis of both at 40 nm"
    ),
    Unmodelled(
        "accuracy against pruning ratio",
        "4x tokens or 1.2x heads without loss",
        "Figure 21",
        "the models, their data and the fine-tuning",
    ),
    Unmodelled(
        "co-designed Transformer", "1.9x faster, 2.8x smaller", "Figures 16 and 17", "the searched architectures"
    ),
)
