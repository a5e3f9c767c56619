"""`RaterAttention`: the attention of those text tokens that the image concerns, SparseVLM's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Similarity


@dataclass(frozen=True)
class RaterAttention:
    """Mean over heads and raters of the probabilities of image tokens: specification `methods-more`, SparseVLM.

    Before the first layer the raters are chosen: the text tokens whose share of the image tokens' similarity (softmax
    over the text of their dot products, mean over the image) is over the mean share; all where none is. The result of
    that step, and afterwards what the scores say of text tokens, is 1 for raters and 0 for the others, so the choice
    comes along as the scorer's state. Without a segment, the last token is the text.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HIDDEN, Signal.QUERY, Signal.KEY})

    def score(self, context: Context) -> Tensor:
        text = _text(context)
        image = context.valid & ~text
        if context.layer < 0 or context.state is None:
            return _raters(context.signals[Signal.HIDDEN], image, text)
        raters = text & (context.state > 0.5)
        attention = _attention(context, raters)
        return torch.where(text, raters.to(attention.dtype), attention)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        if layer < 0:
            return (Similarity(layer=layer, rows_a=tokens, rows_b=1, width=shape.width),)
        return ()  # the raters' rows are taps on the layer's own attention


def _text(context: Context) -> Tensor:
    """bool [B, N]."""
    if context.segment is not None:
        return context.valid & ~context.segment
    return context.valid & (context.valid.flip(-1).cumsum(-1).flip(-1) == 1)


def _raters(embedded: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """float [B, N]: 1 for raters."""
    alike = (embedded @ embedded.transpose(1, 2)).masked_fill(~text.unsqueeze(1), float("-inf")).softmax(-1)
    share = (alike.nan_to_num() * image.unsqueeze(-1)).sum(1) / image.sum(-1, keepdim=True).clamp(min=1)
    mean = (share * text).sum(-1, keepdim=True) / text.sum(-1, keepdim=True).clamp(min=1)
    over = text & (share > mean)
    return torch.where(over.any(-1, keepdim=True), over, text).to(embedded.dtype)


def _attention(context: Context, raters: Tensor) -> Tensor:
    """float [B, N]: probabilities of the raters' rows, mean over heads and raters; causal where there is a segment."""
    query, key = context.signals[Signal.QUERY], context.signals[Signal.KEY]
    result = torch.zeros(raters.shape, dtype=query.dtype, device=query.device)
    for row in range(len(raters)):
        rows = raters[row].nonzero().flatten()
        logits = query[row][:, rows] @ key[row].transpose(1, 2) * query.shape[-1] ** -0.5
        hidden = ~context.valid[row].expand(len(rows), -1)
        if context.segment is not None:
            hidden = hidden | (torch.arange(raters.shape[1], device=rows.device) > rows.unsqueeze(1))
        result[row] = logits.masked_fill(hidden, float("-inf")).softmax(-1).mean((0, 1))
    return result
