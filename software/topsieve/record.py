"""`Record`: what happened in one forward pass under a method, layer by layer; `topsieve.lower` turns it into a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topsieve.reduction.roles import AttentionPolicy, Decision, ModelShape, Signal, Site

if TYPE_CHECKING:
    from topsieve.cache.record import CacheRecord


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one forward pass over a batch of B sequences.

    Parameters
    ----------
    layer : index.
    attention_tokens : int64 [B], live tokens that entered attention; attention_padded : the tensor's length.
    ffn_tokens : int64 [B], live tokens that entered the FFN; ffn_padded : the tensor's length.
    heads : bool [B, H], heads that were live in this layer's attention.
    positions : int64 [B, N], original positions of the tokens that entered, -1 for padding and merged tokens.
    policy : what the method changed inside attention.
    signals : what the method's scorers tapped in this layer.
    decisions : the steps taken in this layer, in order.
    decided_among : bool [B, N] a decision (heads: [B, H]), the live tokens or heads it chose among.
    lsb_rows : int64 [B, H], query rows that were recomputed with LSBs; None without progressive quantisation.
    valid : bool [B, N], size : float [B, N], query : float [B, H, N, d], key, value : float [B, KV, N, d] as they
        entered attention, when operands were asked for; else None.
    """

    layer: int
    attention_tokens: Tensor
    attention_padded: int
    ffn_tokens: Tensor
    ffn_padded: int
    heads: Tensor
    positions: Tensor
    policy: AttentionPolicy
    signals: frozenset[Signal]
    decisions: tuple[Decision, ...]
    decided_among: tuple[Tensor, ...]
    lsb_rows: Tensor | None = None
    valid: Tensor | None = None
    size: Tensor | None = None
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None


@dataclass(frozen=True)
class BoundaryRecord:
    """Steps taken before the first layer (`Site.INPUT`) or after the last, with the tokens they chose among."""

    site: Site
    decisions: tuple[Decision, ...]
    decided_among: tuple[Tensor, ...]


@dataclass(frozen=True)
class VisionRecord:
    """What came before the language model, for the same batch: the tower's record and the projector.

    Parameters
    ----------
    tower : of the vision tower; its boundaries hold the steps around the projector.
    projector : inputs and outputs of each of the projector's linear maps, in order.
    projected_tokens : int64 [B], tokens that the projector mapped; projected_padded : the tensor's length.
    language_tokens : int64 [B], tokens that the language model would see if nothing were removed.
    repeats : sequences of the language model that share an image (beams): B is then repeats x the tower's sequences.
    """

    tower: Record
    projector: tuple[tuple[int, int], ...]
    projected_tokens: Tensor
    projected_padded: int
    language_tokens: Tensor
    repeats: int = 1


@dataclass(frozen=True)
class Record:
    """One forward pass.

    Parameters
    ----------
    shape : of the model; of its language model where there is a vision tower too.
    method : as text that `topsieve.methods.build` reads.
    layers : in order, those after the output is taken included.
    boundaries : steps outside the layers.
    layers_run : layers whose output or signals are used; all where None.
    causal : attention was causal.
    vision : what came before, for a model of vision and language.
    behind : the passes decoded behind it, a `CacheRecord` whose first pass stands for this one; None without a cache.
    """

    shape: ModelShape
    method: str
    layers: tuple[LayerRecord, ...]
    boundaries: tuple[BoundaryRecord, ...] = ()
    layers_run: int | None = None
    causal: bool = False
    vision: VisionRecord | None = None
    behind: CacheRecord | None = None

    @property
    def sequences(self) -> int:
        """Sequences in the batch."""
        return int(self.layers[0].attention_tokens.numel())


def dense_record(
    shape: ModelShape,
    tokens: Tensor,
    padded: int | None = None,
    *,
    causal: bool = False,
    vision: VisionRecord | None = None,
) -> Record:
    """The record of the unreduced model, without running it.

    Parameters
    ----------
    shape : of the model.
    tokens : int64 [B], live tokens of each sequence.
    padded : length of the padded batch; the longest sequence where absent.
    causal : attention is causal.
    vision : what came before, for a model of vision and language.
    """
    length = int(tokens.max()) if padded is None else padded
    place = torch.arange(length).expand(len(tokens), length)
    positions = place.masked_fill(place >= tokens.unsqueeze(1).cpu(), -1)
    layers = tuple(
        LayerRecord(
            layer=layer,
            attention_tokens=tokens,
            attention_padded=length,
            ffn_tokens=tokens,
            ffn_padded=length,
            heads=torch.ones((len(tokens), shape.heads), dtype=torch.bool),
            positions=positions,
            policy=AttentionPolicy(),
            signals=frozenset(),
            decisions=(),
            decided_among=(),
        )
        for layer in range(shape.layers)
    )
    return Record(shape, "dense", layers, causal=causal, vision=vision)
