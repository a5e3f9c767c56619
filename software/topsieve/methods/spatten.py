"""`SpAtten`: cascade token and head pruning, local value pruning, progressive quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.roles import CachePolicy, Cascade
from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, BitPlan, ModelShape, Schedule, Site, Stage
from topsieve.reduction.schedules import LinearRamp, StepwiseRamp
from topsieve.reduction.scorers import CumulativeAttention, HeadMagnitude
from topsieve.reduction.selectors import TopScores
from topsieve_sim.errors import InputError
from topsieve_sim.trace import TopKScope


@dataclass(frozen=True)
class SpAtten:
    """SpAtten: cascade token and head pruning, local value pruning, progressive quantisation.

    Wang, Zhang and Han, HPCA 2021; specification `accelerator`, section 1.

    Tokens with the least attention received so far, summed over heads, rows and layers, are dropped after attention
    and before the FFN; heads with the smallest output so far are dropped from the next layer on; each query reads
    only the values of its largest probabilities; keys are read as MSB planes first, and whole for the rows whose
    largest probability is small. Signals: column sums of the probabilities, absolute sums of the head outputs.

    Differences from the paper: tokens are dropped at the end of a layer's attention, as in the published traces, not
    after single heads. Counts are shares of the initial tokens and round down, as in those traces.

    In a decoder the cascade runs through the layers of every pass, with importance that goes on over passes; `keep` is
    the share of all tokens so far that the last layer reads. The newest token always lives. A layer's cache gives up
    what the layers before it dropped.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1].
    schedule : "linear", the paper's text: the first layers whole, then a straight line; or "stepwise", the published
        traces: four steps in the first half of the layers.
    start_keep : linear only: share after the first step; the average of it and `keep` is the paper's average. None
        spreads the removal evenly.
    unpruned : linear only: share of the layers that stay whole, rounded up.
    head_keep : share of the heads in the last layer, in (0, 1].
    head_start_keep, head_unpruned : as for tokens; heads always follow the straight line.
    value_keep : share of the values each query of each head reads, in (0, 1].
    quantisation : "none"; bits of a key, such as "12" (static); or MSB + LSB plane, such as "8+4" (progressive).
    query_bits, value_bits : with quantisation.
    lsb_threshold : progressive: rows with a smaller largest probability are recomputed with the LSBs.
    protect_first, protect_last : tokens at the ends that always stay. The paper protects none.
    """

    name: ClassVar[str] = "spatten"

    keep: float = 0.5
    schedule: Literal["linear", "stepwise"] = "linear"
    start_keep: float | None = None
    unpruned: float = 0.15
    head_keep: float = 1.0
    head_start_keep: float | None = None
    head_unpruned: float = 0.3
    value_keep: float = 1.0
    quantisation: str = "none"
    query_bits: int = 12
    value_bits: int = 12
    lsb_threshold: float = 0.1
    protect_first: int = 0
    protect_last: int = 0

    def __post_init__(self) -> None:
        for field in ("keep", "start_keep", "head_keep", "head_start_keep", "value_keep"):
            check_share(self.name, field, getattr(self, field))
        for field in ("unpruned", "head_unpruned", "lsb_threshold"):
            check_range(self.name, field, getattr(self, field), 0, 1)
        for field in ("query_bits", "value_bits"):
            check_count(self.name, field, getattr(self, field), low=2)
        for field in ("protect_first", "protect_last"):
            check_count(self.name, field, getattr(self, field))
        check_choice(self.name, "schedule", self.schedule, ("linear", "stepwise"))
        self._bit_plan()

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        tokens, heads = self._token_stage(), self._head_stage()
        return tuple(stage for stage in (tokens, heads) if stage is not None)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy(value_keep=self.value_keep, bits=self._bit_plan())

    def cache(self, shape: ModelShape) -> CachePolicy:
        stages = tuple(stage for stage in (self._token_stage(skip_last=1), self._head_stage()) if stage is not None)
        cascade = Cascade(stages) if stages and shape.layers > 1 else None
        return CachePolicy(cascade=cascade, attention=self.attention(shape, 0))

    def _token_stage(self, skip_last: int = 0) -> Stage | None:
        """`skip_last` layers decide nothing: in a decoder no layer comes after the last."""
        if self.keep == 1:
            return None
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=self.protect_first, protect_last=self.protect_last)
        schedule: Schedule
        if self.schedule == "linear":
            schedule = LinearRamp(
                Site.MID_LAYER,
                self.keep,
                budget,
                start=self.start_keep,
                unpruned=self.unpruned,
                skip_last=skip_last,
                every_layer=True,
            )
        else:
            schedule = StepwiseRamp(Site.MID_LAYER, self.keep, budget, every_layer=True)
        return Stage(schedule, CumulativeAttention(), TopScores(), Drop(), accumulates=True)

    def _head_stage(self) -> Stage | None:
        if self.head_keep == 1:
            return None
        # What the last layer decides would reach no layer.
        schedule = LinearRamp(
            Site.HEAD,
            self.head_keep,
            Budget(ratio=1, base=Base.INITIAL),
            start=self.head_start_keep,
            unpruned=self.head_unpruned,
            skip_last=1,
            every_layer=True,
        )
        return Stage(schedule, HeadMagnitude(), TopScores(TopKScope.HEAD), Drop("head"), accumulates=True)

    def _bit_plan(self) -> BitPlan | None:
        if self.quantisation == "none":
            return None
        planes = self.quantisation.split("+")
        if len(planes) > 2 or not all(plane.isascii() and plane.isdigit() and int(plane) >= 1 for plane in planes):
            raise InputError(
                "wrong value",
                source=f"method {self.name}",
                field="quantisation",
                value=self.quantisation,
                allowed='none, the bits of a key such as "12", or its planes such as "8+4"',
            )
        progressive = len(planes) == 2
        return BitPlan(
            query_bits=self.query_bits,
            key_msb_bits=int(planes[0]),
            key_lsb_bits=int(planes[1]) if progressive else 0,
            value_bits=self.value_bits,
            threshold=self.lsb_threshold if progressive else 0.0,
        )
