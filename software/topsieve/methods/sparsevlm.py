"""`SparseVlm`: the text rates the image tokens, and the best of what goes is recycled."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from topsieve.methods.checks import check_count, check_flag, check_range, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget, exact
from topsieve.reduction.reducers import MergeTo
from topsieve.reduction.roles import ModelShape, Site, Stage, Step, Tower
from topsieve.reduction.scorers import RaterAttention
from topsieve.reduction.selectors import DensityPeaks

# The paper's table for 192 tokens on average: 300, 200 and 110 of 576 are left after layers 2, 6 and 15 of 32.
TABLE_LAYERS = (2, 6, 15)
TABLE_DEPTH = 32
TABLE_REMOVED = (Fraction(276, 466), Fraction(376, 466), Fraction(1))


@dataclass(frozen=True)
class RatedSteps:
    """A step that removes nothing before the first layer, where the raters are chosen; then `steps` after layers."""

    steps: tuple[tuple[int, Budget], ...]

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        choose = Step(Site.INPUT, -1, Budget(ratio=1, ratio_excludes_protected=True))
        return (choose, *(Step(Site.LAYER, layer, budget) for layer, budget in self.steps))


@dataclass(frozen=True)
class SparseVlm(PlainAttention):
    """SparseVLM: text tokens that the image concerns rate the image tokens in three layers.

    Zhang et al., ICML 2025; specification `methods-more`, section B (version 1).

    Raters are chosen once, on the embeddings. In the prefill, after layers 2, 6 and 15 of 32, the image tokens stay that
    the raters attend to, mean over heads and raters; of the others, the best 30 % are clustered by density peaks and
    averaged. Those that stay are numbered anew. Signals: queries, keys, hidden states.

    Differences from the published code: a cluster stands at its centre, not behind the image; no noise is added to the
    densities, equal ones go to the lowest index. In a model of one part, the last token is the text.

    Parameters
    ----------
    keep : share of the image tokens left after the last step, clusters on top, in (0, 1]; the steps before remove the
        parts of the paper's table for 192 tokens.
    counts : tokens left after each step, the paper's table ([300, 200, 110], [303, 110, 36], ...); replaces `keep`.
    layers : after which layers; empty scales 2, 6 and 15 of 32 to the depth.
    recycle : share of the dropped tokens that is clustered; 0 for none.
    renumber : number the tokens anew, as version 1 does; else positions are kept.
    """

    name: ClassVar[str] = "sparsevlm"

    keep: float = 0.2
    counts: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    recycle: float = 0.3
    renumber: bool = True

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "recycle", self.recycle, 0, 1)
        check_flag(self.name, "renumber", self.renumber)
        for layer in self.layers:
            check_count(self.name, "layers", layer)
        for count in self.counts:
            check_count(self.name, "counts", count, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 and not self.counts:
            return ()
        chosen = self.layers or tuple(shape.layers * layer // TABLE_DEPTH for layer in TABLE_LAYERS)
        last = 1 if shape.tower is None else 0
        removal = 1 - exact(self.keep)
        steps = {}
        for number, layer in enumerate(chosen):
            if self.counts:
                budget = Budget(count=self.counts[min(number, len(self.counts) - 1)] + last, protect_last=last)
            else:
                share = 1 - removal * TABLE_REMOVED[min(number, len(TABLE_REMOVED) - 1)]
                budget = Budget(ratio=share, base=Base.INITIAL, protect_last=last, ratio_excludes_protected=True)
            steps[min(layer, shape.layers - 1)] = budget
        schedule = RatedSteps(tuple(sorted(steps.items())))
        selector = DensityPeaks(exact(self.recycle))
        stage = Stage(
            schedule,
            RaterAttention(),
            selector,
            MergeTo(),
            accumulates=True,
            tower=Tower.LANGUAGE,
            renumber=self.renumber,
        )
        return (stage,)
