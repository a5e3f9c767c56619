"""`CacheCraft`: chunks of a prompt keep keys and values from other prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.chunks.roles import ChunkPolicy, ChunksOnly
from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class CacheCraft(ChunksOnly):
    """Cache-Craft: chunks keep keys and values from other prompts; what depended on those is redone.

    Agarwal et al., SIGMOD 2025; specification `methods-text`, section 7. No official code is public.

    A chunk is stored with what its tokens looked at before it. Behind another text a share of its tokens is computed
    again, larger the more it looked outside and the less of that is there and in order; those that looked outside most.
    They, new chunks and the question go through the layers, over the keys and values of all. Nothing is removed.
    `topsieve.chunks.reader.ChunkReader` runs it. Signals: sums of probabilities over chunks, when a chunk is stored.

    Parameters
    ----------
    alpha : factor of the share, tuned on quality in the paper.
    share : this share of every reused chunk instead, in [0, 1]; 0 reuses everything, 1 nothing but the place.
    focus : "none", or "stable": reused chunks that the question does not look at leave the later layers. The paper's
        criterion is unknown; here the chunks that hold `focus_mass` of the question's attention so far must be the same
        in `focus_layers` successive layers, from `focus_from` on.
    focus_from, focus_layers, focus_mass : see `focus`. The paper ends work after 10 to 15 layers.
    variants, chunk_count : what the store holds, of a chunk and in all (5 and 100 in the paper).
    """

    name: ClassVar[str] = "cache-craft"

    alpha: float = 1.0
    share: float | None = None
    focus: Literal["none", "stable"] = "stable"
    focus_from: int = 10
    focus_layers: int = 2
    focus_mass: float = 0.9
    variants: int = 5
    chunk_count: int = 100

    def __post_init__(self) -> None:
        check_range(self.name, "alpha", self.alpha, 0)
        if self.share is not None:
            check_range(self.name, "share", self.share, 0, 1)
        check_choice(self.name, "focus", self.focus, ("none", "stable"))
        check_count(self.name, "focus_from", self.focus_from)
        check_count(self.name, "focus_layers", self.focus_layers, low=1)
        check_share(self.name, "focus_mass", self.focus_mass)
        for field in ("variants", "chunk_count"):
            check_count(self.name, field, getattr(self, field), low=1)

    def chunks(self, shape: ModelShape) -> ChunkPolicy:
        return ChunkPolicy(
            self.alpha,
            self.share,
            self.focus == "stable",
            self.focus_from,
            self.focus_layers,
            self.focus_mass,
            self.variants,
            self.chunk_count,
        )
