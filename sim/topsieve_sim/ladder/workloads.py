"""The traces of the ladder: published ones, BERT at two lengths, and a decoder with grouped queries.

All are without operands, so what data would decide is the same for every machine: the counts of the published traces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from topsieve_sim.trace import Trace, load_workload
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey
from topsieve_sim.validation.workbench import MEDIUM, SMALL
from topsieve_sim.validation.workloads import BERT_BASE, MEDIUM_WIKITEXT2, bert_trace, decode_trace

# Qwen2-0.5B: 24 layers, 14 query heads on 2 key-value heads of 64 elements.
QUERY_HEADS, KEY_VALUE_HEADS = 14, 2


@dataclass(frozen=True)
class Workload:
    """A trace by name; `build(shares_keys)` makes it with or without keys that query heads share."""

    name: str
    title: str
    build: Callable[[bool], Trace]


def grouped_trace(shares_keys: bool) -> Trace:
    """A decoder of Qwen2-0.5B's shape under the published schedule of GPT-2-Medium, which has as many layers."""
    schedule = replace(MEDIUM_WIKITEXT2, heads=(QUERY_HEADS,) * len(MEDIUM_WIKITEXT2.heads))
    trace = decode_trace(schedule, "qwen2-0.5b")
    if not shares_keys:
        return trace
    ops = tuple(
        replace(op, kv_heads=KEY_VALUE_HEADS) if isinstance(op, QueryKey | ProbabilityValue) else op for op in trace.ops
    )
    return replace(trace, ops=ops)


WORKLOADS: tuple[Workload, ...] = (
    Workload("bert-base-31", "BERT-Base, 31 tokens, nothing pruned", lambda _: bert_trace(BERT_BASE, 31)),
    Workload("bert-base-175", "BERT-Base, 175 tokens, nothing pruned", lambda _: bert_trace(BERT_BASE, 175)),
    Workload(SMALL, "GPT-2-Small, 32 tokens after 992, the authors' trace", lambda _: load_workload(SMALL)),
    Workload(
        MEDIUM,
        "GPT-2-Medium, 32 tokens after 992, the authors' schedule",
        lambda _: decode_trace(MEDIUM_WIKITEXT2, MEDIUM),
    ),
    Workload("qwen2-0.5b", "Grouped queries: Qwen2-0.5B's shape, GPT-2-Medium's schedule (assumed)", grouped_trace),
)
LOOP_WORKLOADS: tuple[Workload, ...] = tuple(workload for workload in WORKLOADS if workload.name == SMALL)
