"""`Record`: what happened in one forward pass under a method, layer by layer; `topsieve.lower` turns it into a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.roles import AttentionPolicy, Decision, ModelShape, Signal


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one forward pass over a batch of B sequences.

    Parameters
    ----------
    layer : index.
    attention_tokens : int64 [B], live tokens that entered attention; attention_padded : the tensor's length.
    ffn_tokens : int64 [B], live tokens that entered the FFN; ffn_padded : the tensor's length.
    heads : bool [B, H], heads that were live in this layer's attention.
    positions : int64 [B, N], original positions of the tokens that entered, -1 for padding.
    policy : what the method changed inside attention.
    signals : what the method's scorers tapped in this layer.
    decisions : the steps taken in this layer, in order.
    lsb_rows : int64 [B, H], query rows that were recomputed with LSBs; None without progressive quantisation.
    query, key, value : float [B, H, N, d] as they entered attention, when operands were asked for; else None.
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
    lsb_rows: Tensor | None = None
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None


@dataclass(frozen=True)
class Record:
    """One forward pass: the model's shape, the method as text, and its layers in order."""

    shape: ModelShape
    method: str
    layers: tuple[LayerRecord, ...]
