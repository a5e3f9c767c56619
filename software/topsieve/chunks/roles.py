"""What a method that reuses chunks says: how much of a reused chunk is computed again, and when work on it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from topsieve.reduction.roles import AttentionPolicy, ModelShape, Stage


@dataclass(frozen=True)
class ChunkPolicy:
    """What a method does on a model.

    Parameters
    ----------
    alpha : factor of the share that is computed again.
    share : this share of every reused chunk instead; None for the share that the chunk's scores ask for.
    focus : tokens of reused chunks that the question does not look at leave the later layers.
    focus_from : the first layer that may end work. focus_layers : layers that must agree. focus_mass : attention that the
        chunks in focus hold.
    variants, chunks : of a chunk, and chunks, that a store holds.
    """

    alpha: float = 1.0
    share: float | None = None
    focus: bool = False
    focus_from: int = 10
    focus_layers: int = 2
    focus_mass: float = 0.9
    variants: int = 5
    chunks: int = 100


@runtime_checkable
class ChunkMethod(Protocol):
    """A method that reuses chunks."""

    @property
    def name(self) -> str: ...

    def chunks(self, shape: ModelShape) -> ChunkPolicy:
        """What it does on a model of `shape`."""
        ...


class ChunksOnly:
    """Base of methods that act on prompts made of chunks and on nothing else."""

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        return ()

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()


def acts_on_chunks(method: object) -> bool:
    """Whether `method` reuses chunks."""
    return isinstance(method, ChunksOnly)
