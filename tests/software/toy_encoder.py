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


def signals_of(probability: Tensor, key: Tensor, output: Tensor, hidden: Tensor) -> dict[Signal, Tensor]:
    """All signals, from probabilities whose padding rows are zero."""
    return {
        Signal.ATTENTION_COLUMN_SUM: probability.sum(2),
        Signal.ATTENTION_DIAGONAL: probability.diagonal(dim1=2, dim2=3),
        Signal.ATTENTION_CLS_ROW: probability[:, :, 0],
        Signal.HEAD_ABSOLUTE_SUM: output.abs().sum((2, 3)),
        Signal.KEY: key,
        Signal.HIDDEN: hidden,
    }


def run(method: Method, hidden: Tensor, valid: Tensor, *, masked: bool = False, shape: ModelShape = SHAPE) -> Run:
    """Run `method` over hidden [B, N, C] with live rows `valid`; `masked` hides removed tokens instead of moving rows."""
    initial = valid.sum(-1)
    positions = torch.arange(valid.shape[1]).expand(valid.shape).masked_fill(~valid, -1)
    size = valid.to(hidden.dtype)
    heads = torch.ones(valid.shape[0], shape.heads, dtype=torch.bool)
    plan: list[tuple[Stage, Step]] = [
        (stage, step) for stage in method.stages(shape) for step in stage.schedule.plan(shape)
    ]
    state: dict[int, Tensor] = {}
    decisions: list[Decision] = []
    head_decisions: list[Decision] = []
    for layer, weight in enumerate(weights(shape)):

        def split(x: Tensor) -> Tensor:
            return x.reshape(*x.shape[:2], shape.heads, shape.head_dim).transpose(1, 2)

        query, key, value = (split(hidden @ weight[name]) for name in "qkv")
        scores = query @ key.transpose(2, 3) / shape.head_dim**0.5
        if method.attention(shape, layer).size_bias:
            scores = scores + torch.where(valid, size, 1.0).log()[:, None, None]
        scores = scores.masked_fill(~valid[:, None, None], float("-inf"))
        probability = scores.softmax(-1) * valid[:, None, :, None] * heads[:, :, None, None]
        output = probability @ value
        signals = signals_of(probability, key, output, hidden)
        hidden = layer_norm(hidden + output.transpose(1, 2).flatten(2) @ weight["o"], (shape.width,))
        signals[Signal.HIDDEN] = hidden

        for site in (Site.MID_LAYER, Site.LAYER, Site.HEAD):
            if site is Site.LAYER:
                hidden = layer_norm(hidden + (hidden @ weight["up"]).relu() @ weight["down"], (shape.width,))
            for stage, step in plan:
                if (step.site, step.layer) != (site, layer):
                    continue
                if site is Site.HEAD:
                    numbers = torch.arange(shape.heads).expand(heads.shape)
                    of_heads = torch.full_like(initial, shape.heads)
                    seen = Context(
                        shape, layer, heads, numbers, heads.to(hidden.dtype), of_heads, signals, state.get(id(stage))
                    )
                else:
                    seen = Context(shape, layer, valid, positions, size, initial, signals, state.get(id(stage)))
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
                    state[id(stage)] = reduction.gather(reduction.scores)
                hidden = reduction.apply(hidden)
                valid, positions, size = reduction.valid, reduction.positions, reduction.size
    return Run(tuple(decisions), tuple(head_decisions), hidden, valid)


def batch(lengths: list[int], seed: int, shape: ModelShape = SHAPE) -> tuple[Tensor, Tensor]:
    """Random hidden states [B, max length, C] and their live rows; padding holds garbage."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    hidden = torch.randn(len(lengths), longest, shape.width, generator=generator, dtype=torch.float64)
    valid = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return hidden, valid
