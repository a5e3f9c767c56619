"""`Workload`: the passes that a run of one or more models makes, as a trace.

A trace knows two masks: every row sees all keys, or row q of Q sees the first `keys - Q + q + 1` of them (causal). Other
masks are put in their terms. A tree whose nodes stand in breadth-first order behind the prefix is causal with holes: the
prefix that row q sees holds all ancestors of its node. The machine computes the holes too, so the cost is that of a
machine which masks scores after it has computed them. Ragged batches are passes of their own sequences; where a batch is
padded, `keys` counts the padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from topsieve.attention_ops import attention_group
from topsieve.reduction.roles import BitPlan, ModelShape
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import FeedForward, Projection, TopK

# The published machine's widths with all planes of a key fetched at once.
WIDTHS = BitPlan(12, 12, 0, 12, 0.0)

OUTSIDE = -1


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of one sequence through the layers of a model.

    Parameters
    ----------
    shape : of the model; models of one workload are told apart by it.
    queries : tokens that run. keys : tokens they attend to, themselves included.
    sequence, step : place in the trace.
    causal : see the module; one query sees all keys either way.
    layer_work : operations in each layer behind its FFN. work : operations behind the last layer.
    """

    shape: ModelShape
    queries: int
    keys: int
    sequence: int = 0
    step: int = 0
    causal: bool = True
    layer_work: tuple[Op, ...] = ()
    work: tuple[Op, ...] = ()


@dataclass(frozen=True)
class Workload:
    """Passes in program order, of one or more models, under a method's name."""

    passes: tuple[Pass, ...]
    method: str
    notes: tuple[str, ...] = ()

    @property
    def query_rows(self) -> int:
        """Tokens that ran, over all passes."""
        return sum(item.queries for item in self.passes)

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """The models, in order of their first pass."""
        return tuple(dict.fromkeys(item.shape for item in self.passes))

    def trace(self, widths: BitPlan = WIDTHS) -> Trace:
        """The operations; layers of the second model are numbered behind those of the first, and so on."""
        first = {}
        layers = 0
        for shape in self.shapes:
            first[shape] = layers
            layers += shape.layers
        ops = tuple(op for item in self.passes for op in _pass_ops(item, first[item.shape], widths))
        return Trace(
            ops,
            model=" + ".join(shape.name for shape in self.shapes),
            method=self.method,
            layers=layers,
            heads=max(shape.heads for shape in self.shapes),
            notes=self.notes,
        )


def generation(
    shape: ModelShape, prompt: int, generated: int, *, sequence: int = 0, work: tuple[Op, ...] = ()
) -> tuple[Pass, ...]:
    """Plain decoding: all prompt tokens but the last in one pass, then one token a pass, `generated` times.

    `work` stands behind each pass that gives a token.
    """
    head = (Pass(shape=shape, queries=prompt - 1, keys=prompt - 1, sequence=sequence),) if prompt > 1 else ()
    return head + tuple(
        Pass(shape=shape, queries=1, keys=prompt + step, sequence=sequence, step=step + 1, work=work)
        for step in range(generated)
    )


def output_head(shape: ModelShape, rows: int, vocabulary: int) -> Projection:
    """The map from `rows` hidden states to logits."""
    return Projection(layer=OUTSIDE, tokens=rows, inputs=shape.width, outputs=vocabulary, role="other")


def exact_topk(n: int, k: int, *, repeats: int = 1, capacity: int = 1024) -> tuple[TopK, ...]:
    """The `k` largest of `n` scores on an engine that takes `capacity` of them: of blocks, then of their survivors.

    Exact, because the `k` largest of all are among the `k` largest of their blocks. Blocks are counted full.
    """
    ops = []
    while n > capacity:
        blocks = -(-n // capacity)
        if k >= capacity:
            break
        ops.append(TopK(layer=OUTSIDE, n=capacity, k=k, scope=TopKScope.EDGE, repeats=repeats * blocks))
        n = blocks * k
    return (*ops, TopK(layer=OUTSIDE, n=n, k=min(k, n), scope=TopKScope.EDGE, repeats=repeats))


def _pass_ops(item: Pass, first_layer: int, widths: BitPlan) -> Iterator[Op]:
    for layer in range(first_layer, first_layer + item.shape.layers):
        yield from _layer_ops(item, layer, widths)
        yield from _placed(item, item.layer_work, layer)
    yield from _placed(item, item.work, None)


def _placed(item: Pass, ops: Sequence[Op], layer: int | None) -> Iterator[Op]:
    for op in ops:
        yield replace(op, layer=op.layer if layer is None else layer, sequence=item.sequence, step=item.step)


def _layer_ops(item: Pass, layer: int, widths: BitPlan) -> Iterator[Op]:
    shape, queries, keys = item.shape, item.queries, item.keys
    place = {"layer": layer, "sequence": item.sequence, "step": item.step}
    columns = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    yield Projection(**place, tokens=queries, inputs=shape.width, outputs=columns, role="qkv")
    yield from attention_group(shape, place, queries, keys, widths, causal=item.causal and queries > 1)
    yield Projection(**place, tokens=queries, inputs=shape.heads * shape.head_dim, outputs=shape.width, role="o")
    yield FeedForward(**place, tokens=queries, width=shape.width, hidden=shape.ffn_width, gated=shape.gated_ffn)
