"""Workloads prepared once and simulated once a machine, shared by all rows of a validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.program import Program
from topsieve_sim.report import Report
from topsieve_sim.trace import Trace, load_workload
from topsieve_sim.validation.benchmarks import KEY_THOUSANDTHS, pruned_bert_trace, with_scaled_keys
from topsieve_sim.validation.workloads import (
    BERT_BASE,
    BERT_LARGE,
    BERT_TASK_TOKENS,
    GENERATED_TOKENS,
    GPT2_MEDIUM,
    MEDIUM_DENSE,
    MEDIUM_WIKITEXT2,
    all_heads,
    at_widths,
    bert_trace,
    decode_trace,
    linear_trace,
    scaled_to_flops,
)

SMALL, SMALL_DENSE = "gpt2-small-wikitext2-pruned", "gpt2-small-wikitext2-dense"
SMALL_FP32, SMALL_STATIC = "gpt2-small-wikitext2-pruned-fp32", "gpt2-small-wikitext2-pruned-12-bit"
MEDIUM, MEDIUM_FULL = "gpt2-medium-wikitext2-pruned", "gpt2-medium-dense"
MEDIUM_FP32 = "gpt2-medium-wikitext2-pruned-fp32"
MEDIUM_ALL_HEADS, MEDIUM_MEAN = "gpt2-medium-all-heads", "gpt2-medium-0.9-gflop"
MEDIUM_LINEAR = "gpt2-medium-linear"

# Attention work of SpAtten-e2e on GPT-2-Medium, the mean of four data sets (SpAtten, Table IV).
TABLE_IV_ATTENTION_FLOPS = 0.9e9

_TRACES: dict[str, Callable[[], Trace]] = {
    SMALL: lambda: load_workload(SMALL),
    SMALL_DENSE: lambda: load_workload(SMALL_DENSE),
    SMALL_FP32: lambda: at_widths(load_workload(SMALL), 32, 32),
    SMALL_STATIC: lambda: at_widths(load_workload(SMALL), 12, 12),
    MEDIUM: lambda: decode_trace(MEDIUM_WIKITEXT2, MEDIUM),
    MEDIUM_FULL: lambda: decode_trace(MEDIUM_DENSE, MEDIUM_FULL),
    MEDIUM_FP32: lambda: at_widths(decode_trace(MEDIUM_WIKITEXT2, MEDIUM_FP32), 32, 32),
    MEDIUM_ALL_HEADS: lambda: decode_trace(all_heads(MEDIUM_WIKITEXT2), MEDIUM_ALL_HEADS),
    MEDIUM_MEAN: lambda: decode_trace(
        scaled_to_flops(all_heads(MEDIUM_WIKITEXT2), TABLE_IV_ATTENTION_FLOPS), MEDIUM_MEAN
    ),
    MEDIUM_LINEAR: lambda: linear_trace(GPT2_MEDIUM, GENERATED_TOKENS),
}


def bert(size: str, tokens: int, pruned: bool = False) -> str:
    """Name of the workload of BERT `base` or `large` over `tokens` tokens, dense or pruned as `benchmarks` assumes."""
    return f"bert-{size}-{tokens}" + ("-pruned" if pruned else "")


def gpt2(size: str, data: str) -> str:
    """Name of the workload of GPT-2 `small` or `medium` on a data set of the paper."""
    return {"small": SMALL, "medium": MEDIUM}[size] if data == "wikitext2" else f"gpt2-{size}-{data}-assumed"


SIZES = ("base", "large")
GPT2_SIZES, GPT2_SETS = ("small", "medium"), ("wikitext2", "wikitext103", "ptb", "1bw")
# The 22 BERT benchmarks of the paper, one a model and task, dense, and the same pruned.
BERT_BENCHMARKS = tuple(bert(size, tokens) for size in SIZES for tokens in BERT_TASK_TOKENS.values())
PRUNED_BERT = tuple(bert(size, tokens, True) for size in SIZES for tokens in BERT_TASK_TOKENS.values())
GPT2_BENCHMARKS = tuple(gpt2(size, data) for size in GPT2_SIZES for data in GPT2_SETS)
DENSE_GPT2 = tuple({"small": SMALL_DENSE, "medium": MEDIUM_FULL}[size] for size in GPT2_SIZES for _ in GPT2_SETS)
# The 30 benchmarks, and what each is a pruned form of.
ALL_BENCHMARKS = (*PRUNED_BERT, *GPT2_BENCHMARKS)
ALL_DENSE = (*BERT_BENCHMARKS, *DENSE_GPT2)


class Workbench:
    """Runs workloads on one machine and on variants of it, each once.

    Parameters
    ----------
    accelerator : a preset's name or a YAML file.
    overrides : `field=value` of the machine, as `load_config` takes them.
    """

    def __init__(self, accelerator: str | Path = "spatten", overrides: tuple[str, ...] = ()) -> None:
        self.accelerator = accelerator
        self.overrides = overrides
        self.config = load_config(accelerator, overrides)
        self._programs: dict[str, Program] = {}
        self._reports: dict[tuple[str, str], Report] = {}

    def machine(self, *overrides: str) -> AcceleratorConfig:
        """The machine with further fields overridden."""
        return load_config(self.accelerator, (*self.overrides, *overrides))

    def program(self, workload: str) -> Program:
        """A workload of this module, made ready.

        Raises
        ------
        KeyError
            no workload has this name.
        """
        if workload not in self._programs:
            self._programs[workload] = prepare(_trace(workload))
        return self._programs[workload]

    def report(self, workload: str, *overrides: str) -> Report:
        """`workload` on the machine with `overrides`; seed 0."""
        return self.report_on(self.machine(*overrides), workload)

    def report_on(self, config: AcceleratorConfig, workload: str) -> Report:
        """`workload` on any machine; seed 0."""
        key = (config.digest, workload)
        if key not in self._reports:
            self._reports[key] = simulate(self.program(workload), config)
        return self._reports[key]

    def token_report(self, workload: str, step: int, layer: int | None, *overrides: str) -> Report:
        """One generated token of a workload without operands, or one layer of it, on the machine with `overrides`."""
        config = self.machine(*overrides)
        key = (config.digest, f"{workload} step {step} layer {layer}")
        if key not in self._reports:
            self._reports[key] = simulate(self.token_trace(workload, step, layer), config)
        return self._reports[key]

    def token_trace(self, workload: str, step: int, layer: int | None = None) -> Trace:
        """One generated token of a workload without operands, or one layer of it."""
        trace = self.program(workload).trace
        return replace(trace, ops=tuple(op for op in trace.ops if op.step == step and layer in (None, op.layer)))

    def milliseconds(self, workload: str, *overrides: str) -> float:
        """Latency of `workload`."""
        return self.report(workload, *overrides).latency_us * 1e-3


def _trace(workload: str) -> Trace:
    if workload in _TRACES:
        return _TRACES[workload]()
    kind, size, what, *form = workload.split("-")
    if kind == "gpt2":
        whole = _TRACES[gpt2(size, "wikitext2")]()
        return replace(with_scaled_keys(whole, KEY_THOUSANDTHS[size][what]), model=workload)
    if kind != "bert":
        raise KeyError(workload)
    build = pruned_bert_trace if form else bert_trace
    return build({"base": BERT_BASE, "large": BERT_LARGE}[size], int(what))
