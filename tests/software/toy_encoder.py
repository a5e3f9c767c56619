"""A float64 encoder without positions, in plain torch, that runs a method's roles the way a model adapter would."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from topsieve.reduction import Context, Decision, Method, ModelShape, Reduction, Signal, Site, Stage, Step, decide

# Handing such small tensors to other threads costs more than the work.
torch.set_num_threads(1)

SHAPE = ModelShape(
    name="toy", family="toy", layers=4, heads=3, kv_heads=3, head_dim=4, width=12, ffn_width=16, gated_ffn=False
)


@dataclass(frozen=True)
class Run:
    """What came out: token decisions in order, head decisions, the last hidden states and which rows are live."""

    decisions: tuple[Decision, ...]
    head_decisions: tuple[Decision, ...]
    hidden: Tensor
    valid: Tensor

    @property
    def reductions(self) -> list[Reduction]:
        return [decision.reduction for decision in self.decisions]


def weights(shape: ModelShape = SHAPE, seed: int = 0) -> list[dict[str, Tensor]]:
    """Random matrices of each layer."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64) / rows**0.5

    inner = shape.heads * shape.head_dim
    return [
        {name: matrix(shape.width, inner) * 2 for name in "qkv"}
        | {
            "o": matrix(inner, shape.width),
            "up": matrix(shape.width, shape.ffn_width),
            "down": matrix(shape.ffn_width, shape.width),
        }
        for _ in range(shape.layers)
    ]


def signals_of(
    probability: Tensor, operands: dict[Signal, Tensor], output: Tensor, hidden: Tensor, valid: Tensor
) -> dict[Signal, Tensor]:
    """All signals of a layer, from probabilities whose padding rows are zero."""
    last = valid.shape[1] - 1 - valid.flip(-1).int().argmax(-1)
    query, key = operands[Signal.QUERY], operands[Signal.KEY]
    class_row = (query[:, :, :1] * key).sum(-1) / query.shape[-1] ** 0.5
    joint = class_row.sum(1, keepdim=True) / query.shape[1] ** 0.5
    joint = joint.masked_fill(~valid.unsqueeze(1), float("-inf"))
    return {
        Signal.ATTENTION_COLUMN_SUM: probability.sum(2),
        Signal.ATTENTION_DIAGONAL: probability.diagonal(dim1=2, dim2=3),
        Signal.ATTENTION_CLS_ROW: probability[:, :, 0],
        Signal.ATTENTION_LAST_ROW: probability[torch.arange(len(last)), :, last],
        Signal.HEAD_ABSOLUTE_SUM: output.abs().sum((2, 3)),
        Signal.HIDDEN: hidden,
        Signal.ATTENTION_CLS_LOGITS: class_row,
        Signal.ATTENTION_JOINT_CLS_ROW: joint.softmax(-1),
        **operands,
    }


def with_hidden(signals: dict[Signal, Tensor], hidden: Tensor, shape: ModelShape, layer: int) -> dict[Signal, Tensor]:
    """`signals` and what the hidden states of the moment give: the next layer's projections, here without rotation."""
    more = {Signal.HIDDEN: hidden, Signal.FEATURES: hidden, Signal.FINAL_HIDDEN: hidden}
    if layer + 1 < shape.layers:
        following = weights(shape)[layer + 1]
        for name, matrix in (("query", "q"), ("key", "k")):
            heads = split(hidden @ following[matrix], shape)
            more |= {Signal(f"next_{name}"): heads, Signal(f"next_rotated_{name}"): heads}
    return signals | more


def split(x: Tensor, shape: ModelShape) -> Tensor:
    """[B, N, H d] to [B, H, N, d]."""
    return x.reshape(*x.shape[:2], shape.heads, shape.head_dim).transpose(1, 2)


def moved(signals: dict[Signal, Tensor], reduction: Reduction, merge: bool) -> dict[Signal, Tensor]:
    """A layer's signals [B, H, N, ...] with their tokens reduced; hidden states are seen as they are at the moment."""
    rows = {signal: x for signal, x in signals.items() if x.dim() >= 3 and signal is not Signal.HIDDEN}
    move = reduction.apply if merge else reduction.gather
    return signals | {signal: move(x.transpose(1, 2)).transpose(1, 2) for signal, x in rows.items()}


def run(
    method: Method,
    hidden: Tensor,
    valid: Tensor,
    *,
    masked: bool = False,
    shape: ModelShape = SHAPE,
    segment: Tensor | None = None,
) -> Run:
    """Run `method` over hidden [B, N, C] with live rows `valid`; `masked` hides removed tokens instead of moving rows.

    Where there is a `segment` (bool [B, N]), attention is causal, as in a language model behind an image.
    """
    initial = (valid if segment is None else valid & segment).sum(-1)
    positions = torch.arange(valid.shape[1]).expand(valid.shape).masked_fill(~valid, -1)
    size = valid.to(hidden.dtype)
    heads = torch.ones(valid.shape[0], shape.heads, dtype=torch.bool)
    plan: list[tuple[Stage, Step]] = [
        (stage, step)
        for stage in method.stages(shape)
        if shape.tower in (None, stage.tower)
        for step in stage.schedule.plan(shape)
    ]
    of_heads_only = {id(stage) for stage, step in plan if step.site is Site.HEAD}
    state: dict[int, Tensor] = {}
    signals: dict[int, dict[Signal, Tensor]] = {}
    decisions: list[Decision] = []
    head_decisions: list[Decision] = []

    def take(site: Site, layer: int | None = None) -> None:
        nonlocal hidden, valid, positions, size, heads, segment, signals, state
        for stage, step in plan:
            if step.site is not site or layer not in (None, step.layer):
                continue
            if site is Site.HEAD:
                numbers = torch.arange(shape.heads).expand(heads.shape)
                of_heads = torch.full_like(initial, shape.heads)
                seen = Context(
                    shape,
                    step.layer,
                    heads,
                    numbers,
                    heads.to(hidden.dtype),
                    of_heads,
                    signals[step.layer],
                    state.get(id(stage)),
                )
            else:
                tapped = with_hidden(signals.get(step.layer, {}), hidden, shape, step.layer)
                tapped[Signal.UNIT] = positions
                earlier = state.get(id(stage))
                seen = Context(shape, step.layer, valid, positions, size, initial, tapped, earlier, segment=segment)
            decision = decide(stage, step, seen)
            reduction = decision.reduction
            if site is Site.HEAD:
                head_decisions.append(decision)
                heads = reduction.sources().any(1)
                state[id(stage)] = reduction.scores
                continue
            decisions.append(decision)
            if masked:
                valid = reduction.sources().any(1)
                state[id(stage)] = reduction.scores
                continue
            if stage.accumulates:
                state[id(stage)] = reduction.scores
            state = {which: kept if which in of_heads_only else reduction.gather(kept) for which, kept in state.items()}
            signals = {which: moved(kept, reduction, stage.merges_signals) for which, kept in signals.items()}
            hidden = reduction.apply(hidden)
            valid, positions, size = reduction.valid, reduction.positions, reduction.size
            if segment is not None:
                segment = reduction.gather(segment) | (valid & (reduction.keep < 0))

    take(Site.INPUT)
    for layer, weight in enumerate(weights(shape)):
        query, key, value = (split(hidden @ weight[name], shape) for name in "qkv")
        scores = query @ key.transpose(2, 3) / shape.head_dim**0.5
        if method.attention(shape, layer).size_bias:
            scores = scores + torch.where(valid, size, 1.0).log()[:, None, None]
        scores = scores.masked_fill(~valid[:, None, None], float("-inf"))
        if segment is not None:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            # Rows of removed tokens may see nothing at all; they count nowhere.
            scores = scores.masked_fill(later, float("-inf"))
            scores = scores.masked_fill(~valid[:, None, :, None], 0.0)
        probability = scores.softmax(-1) * valid[:, None, :, None] * heads[:, :, None, None]
        output = probability @ value
        operands = {Signal.QUERY: query, Signal.KEY: key, Signal.VALUE: value}
        signals[layer] = signals_of(probability, operands, output, hidden, valid)
        hidden = layer_norm(hidden + output.transpose(1, 2).flatten(2) @ weight["o"], (shape.width,))
        take(Site.MID_LAYER, layer)
        hidden = layer_norm(hidden + (hidden @ weight["up"]).relu() @ weight["down"], (shape.width,))
        take(Site.LAYER, layer)
        take(Site.HEAD, layer)
    take(Site.OUTPUT)
    take(Site.PROJECTED)
    return Run(tuple(decisions), tuple(head_decisions), hidden, valid)


def batch(lengths: list[int], seed: int, shape: ModelShape = SHAPE) -> tuple[Tensor, Tensor]:
    """Random hidden states [B, max length, C] and their live rows; padding holds garbage."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    hidden = torch.randn(len(lengths), longest, shape.width, generator=generator, dtype=torch.float64)
    valid = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return hidden, valid
