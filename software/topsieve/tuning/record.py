"""What happened in one forward pass of fine-tuning; `topsieve.lower` turns it into a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.roles import ModelShape
from topsieve.tuning.roles import LayerPlan, TuningPolicy


@dataclass(frozen=True)
class TunedLayer:
    """One layer over B sequences.

    Parameters
    ----------
    layer : index. plan : of the method.
    blocks : int64 [B, m], blocks whose tokens attention worked on.
    rows : int64 [B, n], these tokens; None where all.
    scores : float [B, nb] that blocks were chosen by; None where they were not scored.
    predictor : inputs and outputs of the linear maps of the layer's predictor.
    """

    layer: int
    plan: LayerPlan
    blocks: Tensor
    rows: Tensor | None
    scores: Tensor | None
    predictor: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TuningRecord:
    """One forward pass. `tokens` of a sequence; `channels` of the FFN that the gradient goes through."""

    shape: ModelShape
    method: str
    policy: TuningPolicy
    sequences: int
    tokens: int
    channels: int
    layers: tuple[TunedLayer, ...]

    @property
    def attention_tokens(self) -> tuple[int, ...]:
        """Tokens of a sequence that each layer's attention worked on."""
        return tuple(self.tokens if layer.rows is None else layer.rows.shape[1] for layer in self.layers)
