"""`InformationFlow`: what the class token attends to and resembles, averaged over the layers; FlowCut's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Norm, Similarity


@dataclass(frozen=True)
class InformationFlow:
    """s = (c / sum c + g / sum g) |u|_1, and the mean of it and the result before: specification `methods-vision`, 1.2.

    c is the CLS row of the probabilities, mean over heads; g the mean over heads of softmax(v_cls v), without a scale and
    over all tokens; u the mean of the values over heads; all behind CLS.

    Parameters
    ----------
    likeness : "softmax", g as above, or "cosine": the mean over heads of the cosine of v_cls and v, where it is positive.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_CLS_ROW, Signal.VALUE})

    likeness: Literal["softmax", "cosine"] = "softmax"

    def score(self, context: Context) -> Tensor:
        value, valid = context.signals[Signal.VALUE], context.valid
        others = valid & (valid.cumsum(-1) > 1)
        attention = context.signals[Signal.ATTENTION_CLS_ROW].mean(1) * others
        first = valid.to(torch.int8).argmax(-1)
        rows = value[torch.arange(len(first), device=first.device), :, first]
        if self.likeness == "cosine":
            alike = torch.cosine_similarity(rows.unsqueeze(2), value, dim=-1).clamp(min=0)
        else:
            products = (rows.unsqueeze(2) * value).sum(-1)
            alike = products.masked_fill(~valid.unsqueeze(1), float("-inf")).softmax(-1)
        semantic = alike.mean(1) * others
        strength = value.mean(1).abs().sum(-1)
        tiny = torch.finfo(value.dtype).tiny
        here = (
            attention / attention.sum(-1, keepdim=True).clamp(min=tiny)
            + semantic / semantic.sum(-1, keepdim=True).clamp(min=tiny)
        ) * strength
        return here if context.state is None else 0.5 * context.state + 0.5 * here

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        width = shape.heads * shape.head_dim
        return (
            Similarity(layer=layer, rows_a=1, rows_b=tokens, width=width),
            Merge(layer=layer, sources=tokens, targets=tokens, width=width, divide=False),
            Norm(layer=layer, rows=tokens, width=shape.head_dim, p=1),
        )
