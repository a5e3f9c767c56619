"""`GlobalCom2`: the thumbnail's class token says how much of each crop stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from topsieve.methods.checks import check_choice, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import exact
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import ClassAttention, ClassLogits
from topsieve.reduction.selectors import TopScores

TEMPERATURE = 10.0


@dataclass(frozen=True)
class GlobalCom2(PlainAttention):
    """GlobalCom2: keep the tokens the class token scores highest, more of them in crops that matter.

    Liu et al., AAAI 2026; specification `methods-vision`, section 3.

    As a method it is the first step, for the thumbnail or a picture without crops: between projector and language model
    the tokens stay that CLS scores highest in the tower's last layer. `crop_shares` and `crop_tokens` are the steps for
    crops. Signals: the scores of CLS before the softmax ("official"), or its probabilities ("paper").

    Differences from the published code: survivors stay in ascending order, not in score order.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down.
    variant : what is read of CLS.
    """

    name: ClassVar[str] = "globalcom2"

    keep: float = 0.25
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_choice(self.name, "variant", self.variant, ("official", "paper"))

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        last = shape.layers + shape.tail_layers - 1
        schedule = OneStep(Site.PROJECTED, last, output_budget(shape, self.keep))
        scorer = ClassLogits() if self.variant == "official" else ClassAttention()
        return (Stage(schedule, scorer, TopScores(), Drop()),)


def crop_shares(thumbnail: Tensor, rows: int, columns: int, keep: float, temperature: float = TEMPERATURE) -> Tensor:
    """How much of each crop stays: float64 [rows x columns], in raster order.

    Parameters
    ----------
    thumbnail : float [side x side], scores of the thumbnail's tokens.
    rows, columns : of the grid of crops.
    keep : share of all crops' tokens.
    temperature : of the softmax over the crops' sums.
    """
    side = round(len(thumbnail) ** 0.5)
    high, wide = max(side // rows, 1), max(side // columns, 1)
    place = torch.arange(side)
    row = (place // high).clamp(max=rows - 1)
    column = (place // wide).clamp(max=columns - 1)
    region = (row.unsqueeze(1) * columns + column).flatten()
    sums = torch.zeros(rows * columns, dtype=torch.float64).index_add(0, region, thumbnail.double())
    weight = ((sums - sums.max()) / temperature).exp()
    share = weight / (weight.sum() + 1e-8)
    return (keep * (1 + share - share.mean())).clamp(max=1)


def crop_tokens(
    thumbnail: Tensor, crops: Tensor, rows: int, columns: int, keep: float, temperature: float = TEMPERATURE
) -> Tensor:
    """Which tokens of each crop stay: bool [rows x columns, side x side].

    Crops are whole, without padding. A token's score is its crop's, plus the thumbnail's at its place, bilinearly
    enlarged to the mosaic of the crops; both over their length (2-norm) in the crop.

    Parameters
    ----------
    crops : float [rows x columns, side x side], each crop's own scores; the others as of `crop_shares`.
    """
    side = round(crops.shape[1] ** 0.5)
    shares = crop_shares(thumbnail, rows, columns, keep, temperature)
    large = interpolate(
        thumbnail.reshape(1, 1, side, side), size=(rows * side, columns * side), mode="bilinear", align_corners=False
    )[0, 0]
    parts = large.reshape(rows, side, columns, side).transpose(1, 2).flatten(2).flatten(0, 1)
    scores = normalize(crops, dim=-1) + normalize(parts, dim=-1)
    counts = torch.tensor([int(crops.shape[1] * exact(share)) for share in shares.tolist()])
    return top_k_mask(scores, counts, torch.ones_like(scores, dtype=torch.bool))
