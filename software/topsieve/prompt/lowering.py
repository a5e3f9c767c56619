"""The work of scorers as traces, and the trace of a model with that work in front of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from topsieve.prompt.roles import Compressed
from topsieve_sim.trace import Op, Trace
from topsieve_sim.trace.ops import FeedForward, ProbabilityValue, Projection, QueryKey, Softmax

# An operation of a decision and, of a selection, the scores it chose among.
Decided = tuple[Op, Sequence[float]]


def joined(passes: Sequence[Trace], decisions: Iterable[Decided] = ()) -> Trace | None:
    """The passes of one scorer as one trace, each a sequence of its own, and behind them the `decisions`.

    Parameters
    ----------
    passes : of one scorer; one sequence each.
    decisions : operations outside the passes; they stand in the scorer's last layer and the first pass's sequence.

    Returns
    -------
    None where there are no passes.
    """
    if not passes:
        return None
    ops: list[Op] = []
    operands: dict[tuple[int, str], NDArray[np.float32]] = {}
    for number, trace in enumerate(passes):
        operands |= {(index + len(ops), name): array for (index, name), array in trace.operands.items()}
        ops += [replace(op, sequence=number) for op in trace.ops]
    for op, scores in decisions:
        if len(scores):
            array = np.asarray(scores, dtype=np.float32)[None]
            operands[len(ops), "scores"] = np.minimum(array, np.finfo(np.float32).max)
        ops.append(replace(op, layer=passes[0].layers - 1, sequence=0))
    return replace(passes[0], ops=tuple(ops), operands=operands)


def behind_prefix(trace: Trace, prefix: int) -> Trace:
    """`trace` of one causal pass, less its first `prefix` tokens: an earlier pass left their keys and values."""
    ops: list[Op] = []
    operands = dict(trace.operands)
    for index, op in enumerate(trace.ops):
        if isinstance(op, Projection | FeedForward):
            op = replace(op, tokens=op.tokens - prefix)
        elif isinstance(op, Softmax):
            op = replace(op, rows=op.rows - prefix)
        elif isinstance(op, QueryKey | ProbabilityValue):
            op = replace(op, queries=op.queries - prefix)
            if (index, "query") in operands:
                operands[index, "query"] = np.ascontiguousarray(operands[index, "query"][:, prefix:])
        ops.append(op)
    return replace(trace, ops=tuple(ops), operands=operands)


def charged(trace: Trace, prompts: Sequence[Compressed], method: str) -> Trace:
    """`trace` of a model with the work that shortened its prompts in front.

    The scorer's layers come first; the model's are numbered behind them. A scorer's pass is a sequence of its own, numbered
    behind the model's.

    Parameters
    ----------
    trace : of the model on the shortened prompts.
    prompts : these.
    method : as text.
    """
    before = [prompt.work for prompt in prompts if prompt.work is not None]
    if not before:
        return replace(trace, method=method)
    layers = max(work.layers for work in before)
    operands: dict[tuple[int, str], NDArray[np.float32]] = {}
    ops: list[Op] = []
    sequence = 1 + max(op.sequence for op in trace.ops)
    for work in before:
        operands |= {(index + len(ops), name): array for (index, name), array in work.operands.items()}
        ops += [replace(op, sequence=op.sequence + sequence) for op in work.ops]
        sequence += 1 + max(op.sequence for op in work.ops)
    operands |= {(index + len(ops), name): array for (index, name), array in trace.operands.items()}
    ops += [replace(op, layer=op.layer + layers) for op in trace.ops]
    note = f"layers 0 to {layers - 1} are those of the prompt method's scorer, {before[0].model}"
    return replace(
        trace,
        ops=tuple(ops),
        operands=operands,
        method=method,
        layers=trace.layers + layers,
        notes=(*trace.notes, note),
    )
