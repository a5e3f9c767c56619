"""What a method of fine-tuning says: which blocks of tokens each layer's attention works on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from topsieve.reduction.roles import AttentionPolicy, ModelShape, Stage


class BlockScores(StrEnum):
    """Where the map of blocks comes from."""

    PREDICTOR = "predictor"  # small networks on the layer's input
    ATTENTION = "attention"  # the products of queries and keys themselves, what predictors learn


@dataclass(frozen=True)
class LayerPlan:
    """What one layer does.

    Parameters
    ----------
    scored : blocks are scored, also where all of them stay.
    keep : share of the blocks that stay; None where all do.
    threshold : blocks with a larger score stay, in the place of a share; None without one.
    """

    scored: bool = False
    keep: float | None = None
    threshold: float | None = None

    @property
    def sparse(self) -> bool:
        """Whether blocks may be left out."""
        return self.keep is not None or self.threshold is not None


@dataclass(frozen=True)
class TuningPolicy:
    """What a method does on a model.

    Parameters
    ----------
    layers : a plan for each.
    block : tokens of a block.
    scores : where the scores come from.
    weights : safetensors file of the predictors; empty for untrained ones of `seed`.
    mlp_drop : share of the channels of a gated FFN whose part in the gradient is left out.
    """

    layers: tuple[LayerPlan, ...]
    block: int
    scores: BlockScores
    weights: str = ""
    seed: int = 0
    mlp_drop: float = 0.0


@runtime_checkable
class TuningMethod(Protocol):
    """A method that acts on the fine-tuning of decoders."""

    @property
    def name(self) -> str: ...

    def tuning(self, shape: ModelShape) -> TuningPolicy:
        """What it does on a model of `shape`."""
        ...


class TuningOnly:
    """Base of methods that act on fine-tuning and on nothing else."""

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        return ()

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()


def acts_on_tuning(method: object) -> bool:
    """Whether `method` acts on fine-tuning."""
    return isinstance(method, TuningOnly)
