"""What happened when a prompt of chunks was read; `topsieve.lower` turns it into a trace."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.chunks.roles import ChunkPolicy
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class ChunkUse:
    """One chunk of the prompt.

    Parameters
    ----------
    name : of its tokens. start, tokens : where it stands.
    reused : its keys and values came from the store. moved : they were turned to another position.
    share : of its tokens that is computed again; 1 for a new chunk.
    recomputed : int64 [n], these tokens, counted from the chunk's first.
    scores : float [C] that they were chosen by; None for a new chunk.
    """

    name: str
    start: int
    tokens: int
    reused: bool
    moved: bool
    share: float
    recomputed: Tensor
    scores: Tensor | None


@dataclass(frozen=True)
class ChunkLayer:
    """One layer. `rows` int64 [q], positions whose queries ran; `focus` the chunks that stay in work, where it was decided."""

    layer: int
    rows: Tensor
    focus: tuple[int, ...] | None


@dataclass(frozen=True)
class ChunkRecord:
    """One prompt of `tokens` tokens, of which the last `question` are the question."""

    shape: ModelShape
    method: str
    policy: ChunkPolicy
    tokens: int
    question: int
    rotary: bool
    chunks: tuple[ChunkUse, ...]
    layers: tuple[ChunkLayer, ...]

    @property
    def queries(self) -> tuple[int, ...]:
        """Queries of each layer."""
        return tuple(len(layer.rows) for layer in self.layers)
