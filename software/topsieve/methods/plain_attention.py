"""`PlainAttention`: what most methods say about attention."""

from __future__ import annotations

from topsieve.reduction.roles import AttentionPolicy, ModelShape


class PlainAttention:
    """A method that changes nothing inside attention."""

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        """Nothing changes."""
        return AttentionPolicy()
