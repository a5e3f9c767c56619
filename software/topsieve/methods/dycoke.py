"""`DyCoke`: frames of a video keep what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_flag, check_share
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
    """DyCoke's temporal merging: drop tokens of a video that look as they did in an earlier frame.

    Tao et al., CVPR 2025; specification `methods-more`, section B.

    Between projector and language model: of every second frame, the tokens least like the same places of the frame
    before stay; then every third of four is compared with the first. Signals: hidden states.

    Differences from the published code: survivors keep their order; a last frame without a partner stays whole; its
    second part, which reads less of the cache while decoding, is not here.

    Parameters
    ----------
    keep : share of a compared frame that stays, 1 - the paper's k (0.3), in (0, 1]; counts round down. Frames that
        nothing is compared with stay whole.
    frames : of equal length, in the image tokens.
    last_group : compare the first and third of the last four frames too; the published loop stops before.
    """

    name: ClassVar[str] = "dycoke"

    keep: float = 0.3
    frames: int = 4
    last_group: bool = False

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "frames", self.frames, low=1)
        check_flag(self.name, "last_group", self.last_group)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        schedule = OneStep(Site.PROJECTED, shape.layers - 1, output_budget(shape, 1))
        selector = ChangedFrames(self.frames, exact(self.keep), self.last_group)
        return (Stage(schedule, Equal(frozenset({Signal.HIDDEN})), selector, Drop()),)
