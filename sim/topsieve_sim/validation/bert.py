"""BERT rows: utilisation by sentence length and the average throughput."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.validation.checks import Check, Section
from topsieve_sim.validation.workbench import BERT_BENCHMARKS, Workbench, bert

# Sentence length to utilisation in percent, of the authors' behavioural model run with its defaults.
PUBLISHED_UTILISATION = {12: 49, 16: 72, 17: 55, 25: 67, 31: 85, 39: 89, 53: 89, 69: 92, 100: 94, 180: 97}

SHORT_ROWS = (
    "rows of two beats wait for one of the four output rows behind the weighted-sum array (its stalls are downstream); the "
    "behavioural model has no such limit and charges 115 cycles a layer"
)


def peak_tflops(config: AcceleratorConfig) -> float:
    """Both arrays at full rate."""
    return 2 * (config.dot_product.multipliers + config.weighted_sum.multipliers) * config.clock_mhz * 1e-6


def _utilisation(tokens: int) -> Callable[[Workbench], float]:
    return lambda bench: 100 * bench.report(bert("base", tokens)).attention_tflops / peak_tflops(bench.config)


def mean_tflops(bench: Workbench) -> float:
    """Arithmetic mean over the 22 benchmarks of the executed throughput."""
    return sum(bench.report(name).attention_tflops for name in BERT_BENCHMARKS) / len(BERT_BENCHMARKS)


def _intensity(bench: Workbench) -> float:
    reports = [bench.report(name) for name in BERT_BENCHMARKS]
    return sum(report.attention_flops / report.dram_bytes_total for report in reports) / len(reports)


SECTIONS = (
    Section(
        "BERT: utilisation of the arrays",
        "Executed operations over the peak of both arrays, BERT-Base, nothing pruned, K and V in 12 bits. The published column is "
        "the authors' behavioural model (bert.cpp) run with its defaults: keys in groups of 8, no memory stalls. The averages are over "
        "22 benchmarks, two models and eleven tasks. **The sentence lengths are from memory** (CoLA 11, SST-2 25, QQP 30, STS-B "
        "31, MNLI 39, QNLI 50, MRPC 53, RTE 69, SQuAD 175 tokens): the paper uses the development sets' averages and prints "
        "none. Nothing is pruned in these runs; the paper's were, see *Averages over the benchmarks*.",
        (
            *(
                Check(
                    f"utilisation, {tokens} tokens",
                    "%",
                    published,
                    _utilisation(tokens),
                    "authors' BERT model (specification `accelerator`, 3.6)",
                    decimals=1,
                    reason=SHORT_ROWS if tokens <= 16 else "",
                )
                for tokens, published in PUBLISHED_UTILISATION.items()
            ),
            Check("average throughput, 22 benchmarks, nothing pruned", "TFLOPS", 1.61, mean_tflops, "section V-B"),
            Check(
                "operations a byte, mean of 22 benchmarks, nothing pruned",
                "FLOP/B",
                83,
                _intensity,
                "Figure 18",
                decimals=1,
                reason="lengths from memory and nothing pruned; the published widths of BERT operands are not stated",
            ),
        ),
    ),
)
