"""What happened in the passes of a decoder under a cache method; `topsieve.lower` turns it into a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.cache.roles import CachePolicy, CacheStage, CacheStep, Taps
from topsieve.record import VisionRecord
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import AttentionPolicy, Decision, ModelShape


@dataclass(frozen=True)
class CacheDecision:
    """One eviction or merge: live slots of each row before and after, and how many of them were not compared.

    slots_in, slots_out, fixed : int64 [R].
    """

    step: CacheStep
    stage: CacheStage
    reduction: Reduction
    slots_in: Tensor
    slots_out: Tensor
    fixed: Tensor


@dataclass(frozen=True)
class LayerPass:
    """One layer of one pass.

    Parameters
    ----------
    layer : index.
    queries : int64 [B], live queries whose outputs later layers read.
    padded_queries, padded_slots : what the tensors held.
    slots : int64 [R], live slots that attention could read, the new tokens included.
    heads : bool [B, H], live heads.
    read : int64 [B, H], mean number of slots that a query read (rounded up); equal to the slots where nothing is chosen.
    taps : what was read off the probabilities.
    policy : what changed inside attention.
    decisions : of the cache; cascade : of the layer's cascade, with what it decided among.
    channels : key channels that the old slots held, d where none was removed; narrow_slots : how many slots those are.
    held_bytes : of the layer's cache after the pass.
    image_slots : slots of an image, the most of any sequence; None where nothing is known of one.
    lsb_rows : int64 [R, G], or None.
    query, key, value : float [R, G, Q, d], [R, N, d], [R, N, d], with `valid` bool [R, N] and `live_queries` bool
        [R, Q]; where operands were asked for.
    """

    layer: int
    queries: Tensor
    padded_queries: int
    padded_slots: int
    slots: Tensor
    heads: Tensor
    read: Tensor
    taps: Taps
    policy: AttentionPolicy
    decisions: tuple[CacheDecision, ...]
    cascade: tuple[tuple[Decision, Tensor], ...]
    channels: int
    narrow_slots: int
    held_bytes: int
    image_slots: int | None = None
    lsb_rows: Tensor | None = None
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    valid: Tensor | None = None
    live_queries: Tensor | None = None


@dataclass(frozen=True)
class CacheRecord:
    """The passes of one generation (or of one forward pass), prompt first; `method` as `topsieve.methods.build` reads it.

    `vision` is what came before the prompt's pass in a model of vision and language.
    """

    shape: ModelShape
    method: str
    policy: CachePolicy
    sequences: int
    passes: tuple[tuple[LayerPass, ...], ...]
    vision: VisionRecord | None = None

    @property
    def held_bytes(self) -> tuple[int, ...]:
        """Bytes of keys and values that the cache held after each pass."""
        return tuple(sum(layer.held_bytes for layer in layers) for layers in self.passes)
