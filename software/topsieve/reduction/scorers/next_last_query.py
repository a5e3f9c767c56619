"""`NextLastQuery`: what the last token would attend to in the next layer, PyramidDrop's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Projection, Similarity


@dataclass(frozen=True)
class NextLastQuery:
    """Softmax over the live keys of the last token's query in the next layer, mean over heads: `methods-more`, PyramidDrop."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.NEXT_ROTATED_QUERY, Signal.NEXT_ROTATED_KEY})

    def score(self, context: Context) -> Tensor:
        query, key = context.signals[Signal.NEXT_ROTATED_QUERY], context.signals[Signal.NEXT_ROTATED_KEY]
        valid = context.valid
        last = valid.shape[1] - 1 - valid.flip(-1).to(torch.int8).argmax(-1)
        row = query[torch.arange(len(last), device=last.device), :, last]
        logits = (row.unsqueeze(2) * key).sum(-1) * query.shape[-1] ** -0.5
        wide = torch.promote_types(logits.dtype, torch.float32)
        probability: Tensor = logits.masked_fill(~valid.unsqueeze(1), float("-inf")).softmax(-1, dtype=wide)
        return probability.mean(1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        keys, queries = shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim
        return (
            Projection(layer=layer, tokens=1, inputs=shape.width, outputs=queries, role="q"),
            Projection(layer=layer, tokens=tokens, inputs=shape.width, outputs=keys, role="k"),
            Similarity(layer=layer, rows_a=1, rows_b=tokens, width=queries),
        )
