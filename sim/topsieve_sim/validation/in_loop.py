"""Rows on the machine whose requests go through the command-level HBM2 model, attention in closed loop with it."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_sim.energy import Component
from topsieve_sim.engine.groups import one_memory_cycles
from topsieve_sim.report import Report
from topsieve_sim.validation.checks import Check, Section
from topsieve_sim.validation.gpt2 import CONSISTENCY, RECOVERED, RECOVERED_SMALL
from topsieve_sim.validation.workbench import MEDIUM, MEDIUM_FULL, MEDIUM_MEAN, SMALL, Workbench, bert
from topsieve_sim.validation.workloads import GENERATED_TOKENS

# The first token sees every key; four others stand for the rest, two with second passes as about half of the rest have.
FIRST, OTHERS = 0, (1, 10, 20, 31)
IN_LOOP = ("memory.model=dram",)

Compute = Callable[[Workbench], float]


def over_tokens(
    bench: Workbench, workload: str, measure: Callable[[Report], float], overrides: tuple[str, ...] = IN_LOOP
) -> float:
    """Sum of `measure` over the generated tokens, most of them from their samples."""
    first, *others = (measure(bench.token_report(workload, step, None, *overrides)) for step in (FIRST, *OTHERS))
    return first + (GENERATED_TOKENS - 1) * sum(others) / len(others)


def _ms(workload: str) -> Compute:
    return lambda bench: over_tokens(bench, workload, lambda report: report.latency_us) * 1e-3


def _bytes_per_second(bench: Workbench, workload: str) -> float:
    moved = over_tokens(bench, workload, lambda report: float(report.dram_bytes_total))
    return moved / over_tokens(bench, workload, lambda report: report.latency_us) * 1e6


def _dram_pj_per_bit(bench: Workbench) -> float:
    energy = over_tokens(bench, MEDIUM, lambda report: report.component_energy_pj()[Component.DRAM])
    return energy / over_tokens(bench, MEDIUM, lambda report: 8.0 * report.dram_bytes_total)


def _dense(bench: Workbench) -> Report:
    """One dense FP32 layer of the last token; all layers are equal."""
    return bench.token_report(MEDIUM_FULL, GENERATED_TOKENS - 1, 0, *IN_LOOP)


def _dense_efficiency(bench: Workbench) -> float:
    report = _dense(bench)
    return 100 * report.dram_bytes_total / (report.cycles * bench.config.memory.bytes_per_cycle)


def _dense_ms(bench: Workbench) -> float:
    """All layers and tokens: time goes with the keys, 993 to 1024 of them."""
    layers = bench.program(MEDIUM_FULL).trace.layers
    mean_keys = 1 - (GENERATED_TOKENS - 1) / 2 / (993 + GENERATED_TOKENS - 1)
    return _dense(bench).latency_us * 1e-3 * layers * GENERATED_TOKENS * mean_keys


def _idle_memory_flatters(workload: str, steps: tuple[int, ...]) -> Compute:
    """Percent that the layers of tokens take longer on one memory without a break than on an idle one each."""

    def percent(bench: Workbench) -> float:
        config = bench.machine(*IN_LOOP)
        reports = [bench.token_report(workload, step, None, *IN_LOOP) for step in steps]
        idle = sum(row.cycles for report in reports for row in report.tokens)
        one = sum(int(one_memory_cycles(bench.token_trace(workload, step), config).sum()) for step in steps)
        return 100 * (one - idle) / sum(report.cycles for report in reports)

    return percent


STREAM = (
    "32 ports with queues of their own keep every channel busy; the published machine lost a quarter, and so did its released "
    "RTL on a memory without DRAM timing (64 %), so the loss is not the DRAM's; its cause is not isolated"
)

STAND_IN = "a stand-in: WikiText-2's schedule scaled to the mean's work; the row above has its own and agrees"
TRAFFIC = (
    "the published figure has 5.1x fewer bits than FP32, 6.3 an element; the medium trace has 12 for a key and 8 for a value, and "
    "whole accesses carry a tenth more"
)
MEAN_POWER = (
    "published is the mean power of all benchmarks for this one's time; its traffic is more than the mean traffic"
)

SECTIONS = (
    Section(
        "GPT-2 on DRAM in closed loop",
        "The same machine with `memory.model=dram`: 32 request ports and an address crossbar before 16 channels of HBM2, attention "
        "and memory stepped until they agree, whole accesses of 64 bytes, activations counted (docs/simulator.md). Of the 32 tokens "
        "the first and four others are run, the four stand for 31. Each layer meets an idle memory, so that equal ones are timed once: one shorter than "
        "the 3.9 us between refreshes meets none, and no row is open and no write waits from the layer before. The last rows say what that leaves out: all "
        "layers of a token, or of a prompt, on one memory without a break take so much longer. Nothing in the memory model was fitted to these rows.",
        (
            Check("small, WikiText-2, DRAM", "ms", 1.0, _ms(SMALL), RECOVERED, uncertainty=RECOVERED_SMALL),
            Check("medium, WikiText-2, DRAM", "ms", 2.72, _ms(MEDIUM), RECOVERED),
            Check(
                "medium, mean of four sets: scaled to 0.9 GFLOP, DRAM",
                "ms",
                2.13,
                _ms(MEDIUM_MEAN),
                "Table IV",
                reason=STAND_IN,
            ),
            Check("medium, dense FP32, DRAM", "ms", 16.6, _dense_ms, CONSISTENCY, reason=STREAM),
            Check(
                "dense streaming efficiency, DRAM",
                "%",
                74.7,
                _dense_efficiency,
                CONSISTENCY,
                decimals=1,
                reason=STREAM,
            ),
            Check(
                "average traffic, mean of small and medium, DRAM",
                "GB/s",
                170,
                lambda bench: (_bytes_per_second(bench, SMALL) + _bytes_per_second(bench, MEDIUM)) / 2e9,
                CONSISTENCY,
                decimals=0,
                reason=TRAFFIC,
            ),
            Check(
                "DRAM energy a bit, medium",
                "pJ/bit",
                3.92,
                _dram_pj_per_bit,
                "O'Connor et al., MICRO 2017, average of GPU workloads (specification `accelerator`, 7)",
            ),
            Check(
                "energy of GPT-2-Medium, WikiText-2, DRAM",
                "mJ",
                22.5,
                lambda bench: over_tokens(bench, MEDIUM, lambda report: report.energy_total_pj) * 1e-9,
                "8.30 W for 2.72 ms (specification `accelerator`, 3.5)",
                reason=MEAN_POWER,
            ),
            *(
                Check(
                    f"left out by idle memories, {name}",
                    "% of time",
                    None,
                    _idle_memory_flatters(workload, steps),
                    "one memory for all layers, beside an idle one for each",
                    decimals=1,
                )
                for name, workload, steps in (
                    ("small, first token", SMALL, (FIRST,)),
                    ("small, others", SMALL, OTHERS),
                    ("medium, token 10", MEDIUM, (10,)),
                    ("BERT-Base of 31 tokens", bert("base", 31), (0,)),
                )
            ),
        ),
    ),
)
