"""Rows of the rivals in Table III on SpAtten-1/8's budget, and of a GPU that the paper compares with."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_sim.arch import load_config
from topsieve_sim.engine import AttentionWork
from topsieve_sim.rivals import Roofline, Row, build_all, compare
from topsieve_sim.validation.checks import Check, Section, Status
from topsieve_sim.validation.workbench import BERT_BENCHMARKS, MEDIUM_FULL, Workbench

MACHINE = "spatten-eighth"
BASE, CONSERVATIVE = "a3:search=0,margin_percent=0", "a3"
MNNFAST = "mnnfast:threshold=0"
# Throughput of A3 with its approximation over without, the geometric mean over its own tasks (SpAtten, section V-B).
A3_PUBLISHED_GAIN = 1.73


def _rows(rival: str) -> Callable[[Workbench], tuple[tuple[Row, Row], ...]]:
    """(accelerator, rival) on each of the 22 unpruned BERT runs; operands are drawn where the rival needs them."""

    def run(bench: Workbench) -> tuple[tuple[Row, Row], ...]:
        config, entrants = load_config(MACHINE), build_all([rival])
        drawn = rival == CONSERVATIVE
        rows = {
            name: compare(bench.program(name).trace, config, entrants, drawn=drawn).rows for name in set(BERT_BENCHMARKS)
        }
        return tuple((rows[name][0], rows[name][1]) for name in BERT_BENCHMARKS)

    return run


def _throughput(rival: str) -> Callable[[Workbench], float]:
    return lambda bench: sum(row.effective_gops for _, row in _rows(rival)(bench)) / len(BERT_BENCHMARKS)


def _efficiency(rival: str) -> Callable[[Workbench], float]:
    """Dense-equivalent operations a joule."""

    def mean(bench: Workbench) -> float:
        rows = [row for _, row in _rows(rival)(bench)]
        return sum(1e6 * row.effective_gops * row.latency_us / (row.energy_pj or 0.0) for row in rows) / len(rows)

    return mean


def _speed_up(rival: str) -> Callable[[Workbench], float]:
    return lambda bench: sum(theirs.latency_us / own.latency_us for own, theirs in _rows(rival)(bench)) / len(BERT_BENCHMARKS)


def _table_peak(bench: Workbench) -> float:
    config = load_config(MACHINE)
    return 2 * config.dot_product.multipliers * config.clock_mhz * 1e-3 * A3_PUBLISHED_GAIN


def _titan_milliseconds(bench: Workbench) -> float:
    roofline = Roofline(platform="titan-xp")
    work = bench.program(MEDIUM_FULL).work
    return sum(roofline.microseconds(unit) for unit in work if isinstance(unit, AttentionWork)) * 1e-3


SECTIONS: tuple[Section, ...] = ()
