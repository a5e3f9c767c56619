"""`CrossAttention`: how much text and image look at each other, ToDRE's late score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge


@dataclass(frozen=True)
class CrossAttention:
    """For every token, the larger of two shares of attention: specification `methods-vision`, 2.2.

    Of what the text behind the image attends to, the share on the image; of what the image attends to, the share on that
    text. Probabilities are causal, mean over heads.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.QUERY, Signal.KEY})

    def score(self, context: Context) -> Tensor:
        query, key = context.signals[Signal.QUERY], context.signals[Signal.KEY]
        n = query.shape[2]
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        later = torch.ones((n, n), dtype=torch.bool, device=query.device).triu(1)
        logits = logits.masked_fill(later | ~context.valid[:, None, None, :], torch.finfo(logits.dtype).min)
        attention = logits.softmax(-1).mean(1)
        image = context.eligible
        text = context.valid & ~image & (image.cumsum(-1) > 0)

        def share(rows: Tensor, columns: Tensor) -> Tensor:
            block = (attention * rows.unsqueeze(2) * columns.unsqueeze(1)).sum((1, 2))
            part: Tensor = block / rows.sum(-1).clamp(min=1)
            return part

        most = torch.maximum(share(text, image), share(image, text))
        return most.unsqueeze(-1).expand(context.valid.shape).clone()

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        # Two sums over blocks of the probabilities, head by head.
        return (Merge(layer=layer, sources=shape.heads * tokens, targets=2, width=1, divide=False),)
