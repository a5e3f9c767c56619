"""`JointClassAttention`: the attention of the class token with all heads taken as one, PruMerge's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Similarity


@dataclass(frozen=True)
class JointClassAttention:
    """softmax(q_cls k / sqrt(C)) over all channels at once: specification `methods-more`, PruMerge."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_JOINT_CLS_ROW, Signal.KEY})

    def score(self, context: Context) -> Tensor:
        return context.signals[Signal.ATTENTION_JOINT_CLS_ROW][:, 0]

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return (Similarity(layer=layer, rows_a=1, rows_b=tokens, width=shape.heads * shape.head_dim),)
