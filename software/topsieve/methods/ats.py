"""`Ats`: adaptive token sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import ClassValue
from topsieve.reduction.selectors import InverseCdf


@dataclass(frozen=True)
class Ats(PlainAttention):
    """ATS: sample tokens by the attention of CLS times the length of their values.

    Fayyaz et al., ECCV 2022; specification `methods-more`, section A.

    In each layer from a quarter of the depth on, the scores' cumulative distribution is sampled at evenly spaced
    points; tokens that no sample falls on are dropped. How many stay depends on the data, also where there are more samples
    than tokens. Signals: the CLS row of the
    probabilities, values.

    Differences from the published code: it drops the rows before the probabilities meet the values, which gives the
    same output and saves a part of that product; here, and in traces, the product is computed whole.

    Parameters
    ----------
    keep : upper bound of the share of the initial tokens left in each of the layers, CLS included, in (0, 1]; counts
        round down. 1 switches the method off.
    n_tokens : upper bound as a number, CLS included, the paper's parameter (197); replaces `keep`.
    layers : where; empty takes all from a quarter of the depth on (3 to 11 of 12).
    least : no bound is lower.
    """

    name: ClassVar[str] = "ats"

    keep: float = 0.5
    n_tokens: int | None = None
    layers: tuple[int, ...] = ()
    least: int = 8

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "n_tokens", self.n_tokens, low=2)
        check_count(self.name, "least", self.least, low=1)
        for layer in self.layers:
            check_count(self.name, "layers", layer)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.n_tokens is None and self.keep == 1:
            return ()
        layers = self.layers or tuple(range(shape.layers // 4, shape.layers))
        if self.n_tokens is None:
            budget = Budget(ratio=self.keep, base=Base.INITIAL, minimum=self.least, protect_first=1)
        else:
            budget = Budget(count=self.n_tokens, minimum=self.least, protect_first=1)
        schedule = ListedLayers(Site.MID_LAYER, tuple((layer, budget) for layer in sorted(set(layers))))
        return (Stage(schedule, ClassValue(), InverseCdf(), Drop()),)
