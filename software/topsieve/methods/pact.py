"""`Pact`: drop the unimportant image tokens, cluster the similar ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_range, check_share
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import MergeTo
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Signal, Site, Stage, Tower
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import MeanQueryAttention
from topsieve.reduction.selectors import DistanceBounded


@dataclass(frozen=True)
class Pact:
    """PACT: drop unimportant image tokens and merge those within a distance of each other.

    Dhouib et al., CVPR 2025; specification `methods-more`, section B.

    In the prefill, before layer k of the language model. The best share by the attention of the image's mean query times
    the length of the hidden state is clustered by the cosine of rotated keys, going down in density; dropped tokens join
    a centre that is near. Centres become the mean of their members, keep their position and count as many in the
    attention of later layers. Signals: the next layer's queries and keys, hidden states. In a model of one part, all
    tokens but the last are taken for image tokens.

    Parameters
    ----------
    keep : share of the image tokens that is clustered, so an upper bound of what is left, in (0, 1]; counts round down.
        1 switches the method off.
    k : the layer before which tokens go.
    cutoff : distance within which tokens are one.
    recover : dropped tokens join centres within this times the cutoff.
    """

    name: ClassVar[str] = "pact"

    keep: float = 0.55
    k: int = 4
    cutoff: float = 0.21
    recover: float = 1.5

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "k", self.k, low=1)
        check_range(self.name, "cutoff", self.cutoff, 0, 2)
        check_range(self.name, "recover", self.recover, 0)

    def _layer(self, shape: ModelShape) -> int:
        """The layer after which tokens go; the next one's projections are asked, so there must be one."""
        return min(self.k - 1, shape.layers - 2)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 or shape.layers < 2:
            return ()
        last = 1 if shape.tower is None else 0
        budget = Budget(ratio=self.keep, protect_last=last, ratio_excludes_protected=True)
        schedule = OneStep(Site.LAYER, self._layer(shape), budget)
        scorer = MeanQueryAttention(frozenset({Signal.NEXT_ROTATED_KEY}))
        selector = DistanceBounded(self.cutoff, self.recover)
        return (Stage(schedule, scorer, selector, MergeTo(), tower=Tower.LANGUAGE),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        acts = self.keep < 1 and shape.tower is not Tower.VISION
        return AttentionPolicy(size_bias=acts and layer > self._layer(shape))
