"""Rows of the rivals in Table III on SpAtten-1/8's budget, and of the GPU that the paper compares with."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_sim.arch import load_config
from topsieve_sim.engine import AttentionWork, prepare
from topsieve_sim.engine.program import Program
from topsieve_sim.rivals import Rival, Roofline, Row, build
from topsieve_sim.rivals.comparison import rival_row
from topsieve_sim.rivals.heads import narrowed, trace_operands
from topsieve_sim.validation.checks import Check, Section, Status
from topsieve_sim.validation.workbench import BERT_BENCHMARKS, MEDIUM_FULL, SMALL, SMALL_DENSE, Workbench

MACHINE = "spatten-eighth"
# Without approximation, the only form in which they need no data.
A3, MNNFAST = "a3:search=0,margin_percent=0", "mnnfast:threshold=0"
# Throughput of A3 with its approximation over without, the geometric mean over its own tasks (SpAtten, section V-B).
A3_PUBLISHED_GAIN = 1.73


def _row(name: str, program: Program) -> Row:
    rival = build(name)
    assert isinstance(rival, Rival)
    flops = sum(4 * group.query_key.macs for group in program.trace.attention_groups())
    return rival_row(program, load_config(MACHINE), rival, flops, trace_operands(program.trace))


def _mean(measure: Callable[[Row], float], name: str) -> Callable[[Workbench], float]:
    """The mean of `measure` over the 22 BERT runs, nothing pruned."""

    def mean(bench: Workbench) -> float:
        found = {workload: measure(_row(name, bench.program(workload))) for workload in set(BERT_BENCHMARKS)}
        return sum(found[workload] for workload in BERT_BENCHMARKS) / len(BERT_BENCHMARKS)

    return mean


def _throughput(row: Row) -> float:
    return row.effective_gops


def _efficiency(row: Row) -> float:
    """Dense-equivalent operations a joule; dynamic energy, DRAM included."""
    assert row.energy_pj is not None
    return row.effective_gops * row.latency_us * 1e6 / row.energy_pj


def _generation_speed_up(name: str) -> Callable[[Workbench], float]:
    """SpAtten-1/8 on the pruned GPT-2-Small trace over the rival on the dense one, both in at most 12 bits."""

    def speed_up(bench: Workbench) -> float:
        config = load_config(MACHINE)
        dense = prepare(narrowed(bench.program(SMALL_DENSE).trace, config.formats))
        return _row(name, dense).latency_us / bench.report_on(config, SMALL).latency_us

    return speed_up


def _table_peak(bench: Workbench) -> float:
    config = load_config(MACHINE)
    return 2 * config.dot_product.multipliers * config.clock_mhz * 1e-3 * A3_PUBLISHED_GAIN


def _titan_milliseconds(bench: Workbench) -> float:
    roofline = Roofline(platform="titan-xp")
    work = bench.program(MEDIUM_FULL).work
    return sum(roofline.microseconds(unit) for unit in work if isinstance(unit, AttentionWork)) * 1e-3


SECTIONS = (
    Section(
        "Rivals on the budget of SpAtten-1/8",
        "Analytical models of A3 and MNNFast ([rivals](rivals.md)) with 64 + 64 multipliers, 64 GB/s and 12 bits, without their "
        "approximations: those need data, which no published workload holds. `topsieve rivals` runs them with their "
        "approximations on traces with operands, and shows the error of each.",
        (
            Check(
                "A3 as the table counts it: 64 multipliers, times its gain",
                "GOP/s",
                221,
                _table_peak,
                "Table III, section V-B",
                Status.EXACT,
                decimals=0,
            ),
            Check(
                "A3 without approximation, mean of 22 unpruned BERT runs",
                "GOP/s",
                None,
                _mean(_throughput, A3),
                "Table III counts 128: one of its two modules at work at a time",
                decimals=0,
            ),
            Check(
                "MNNFast without skipping, mean of 22 unpruned BERT runs",
                "GOP/s",
                120,
                _mean(_throughput, MNNFAST),
                "Table III",
                decimals=0,
            ),
            Check(
                "efficiency of A3",
                "GOP/J",
                269,
                _mean(_efficiency, A3),
                "Table III",
                decimals=0,
                reason="theirs adds the DRAM power of the whole SpAtten over eight to A3's own; our BERT runs load each key "
                "once for all queries, and cells and macros alone are counted",
            ),
            Check(
                "efficiency of MNNFast",
                "GOP/J",
                120,
                _mean(_efficiency, MNNFAST),
                "Table III",
                decimals=0,
                reason="theirs is 1 W, an FPGA's power over ten; ours counts the same cells as for the other machines",
            ),
            Check(
                "SpAtten-1/8 over MNNFast, GPT-2-Small WikiText-2",
                "",
                3.0,
                _generation_speed_up(MNNFAST),
                "Table III, for a mix that is not stated",
                reason="one query a head: MNNFast fetches every key and value in 12 bits, and 64 GB/s is its limit",
            ),
            Check(
                "roofline of a TITAN Xp, GPT-2-Medium attention",
                "ms",
                366.7,
                _titan_milliseconds,
                "Table IV",
                decimals=1,
                reason="a roofline is a bound: the GPU ran unfused kernels for one query at 3 % of its bandwidth",
            ),
        ),
    ),
)
