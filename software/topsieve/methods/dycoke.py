"""`DyCoke`: frames of a video keep what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.image_reader import ImageReader
from topsieve.cache.roles import CachePolicy
from topsieve.methods.checks import check_count, check_flag, check_range, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import exact
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import ChangedFrames


@dataclass(frozen=True)
class DyCoke(PlainAttention):
    """DyCoke: drop tokens of a video that look as in an earlier frame, and read fewer in decoding.

    Tao et al., CVPR 2025; specification `methods-more`, section B.

    Between projector and language model: of every second frame, the tokens least like the same places of the frame
    before stay; then every third of four is compared with the first. In decoding, layers behind `decode_layer` read those
    of the remaining tokens that this layer attends to, chosen anew when its attention moves on. Signals: hidden states;
    queries and keys in decoding.

    Differences from the published code: survivors keep their order; a last frame without a partner stays whole.

    Parameters
    ----------
    keep : share of a compared frame that stays, 1 - the paper's k (0.3), in (0, 1]; counts round down. Frames that
        nothing is compared with stay whole. 1 switches the method off.
    frames : of equal length, in the image tokens.
    last_group : compare the first and third of the last four frames too; the published loop stops before.
    decode_keep : share of the remaining image tokens that later layers read in decoding, 1 - the paper's p (0.3); 1 reads
        all.
    decode_layer : that chooses them; one before the last in shallower models.
    alike : cosine of its attention to the earlier one from which on the choice stays.
    """

    name: ClassVar[str] = "dycoke"

    keep: float = 0.3
    frames: int = 4
    last_group: bool = False
    decode_keep: float = 0.3
    decode_layer: int = 3
    alike: float = 0.9

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "frames", self.frames, low=1)
        check_flag(self.name, "last_group", self.last_group)
        check_share(self.name, "decode_keep", self.decode_keep)
        check_count(self.name, "decode_layer", self.decode_layer)
        check_range(self.name, "alike", self.alike, -1, 1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        schedule = OneStep(Site.PROJECTED, shape.layers - 1, output_budget(shape, 1))
        selector = ChangedFrames(self.frames, exact(self.keep), self.last_group)
        return (Stage(schedule, Equal(frozenset({Signal.HIDDEN})), selector, Drop()),)

    def decoding(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1 or self.decode_keep == 1:
            return CachePolicy()
        layer = max(min(self.decode_layer, shape.layers - 2), 0)
        return CachePolicy(reader=ImageReader(layer, self.decode_keep, self.alike))
