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
    the tokens stay that CLS scores highest in the tower's last layer. `unpadded`, `crop_shares`, `crop_tokens` and
    `mosaic_order` are the steps for crops. Signals: the scores of CLS before the softmax ("official"), or its probabilities ("paper").

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


def unpadded(picture: tuple[int, int], rows: int, columns: int, side: int = 24) -> Tensor:
    """bool [rows x columns, side x side]: tokens of each crop that show the picture, not what pads it to the crops' grid.

    Specification `methods-vision`, section 0.4. The mosaic of the crops loses as many rows or columns at either end.

    Parameters
    ----------
    picture : height and width in pixels.
    """
    height, width = picture
    high, wide = rows * side, columns * side
    mosaic = torch.ones(high, wide, dtype=torch.bool)
    if width / height > wide / high:
        padding = (high - int(height * (wide / width))) // 2
        mosaic[:padding] = mosaic[high - padding :] = False
    else:
        padding = (wide - int(width * (high / height))) // 2
        mosaic[:, :padding] = mosaic[:, wide - padding :] = False
    return mosaic.reshape(rows, side, columns, side).transpose(1, 2).flatten(2).flatten(0, 1)


def crop_tokens(
    thumbnail: Tensor,
    crops: Tensor,
    rows: int,
    columns: int,
    keep: float,
    temperature: float = TEMPERATURE,
    *,
    shown: Tensor | None = None,
    variant: Literal["official", "paper"] = "official",
) -> Tensor:
    """Which tokens of each crop stay: bool [rows x columns, side x side].

    A token's score is its crop's, plus the thumbnail's at its place, bilinearly enlarged to the part of the mosaic that
    shows the picture; both over their length (2-norm) in the crop. A crop without any shown token keeps none, but its
    share is spent.

    Parameters
    ----------
    crops : float [rows x columns, side x side], each crop's own scores; the others as of `crop_shares`.
    shown : bool like `crops`, as of `unpadded`; all where absent.
    variant : "official": a row of crops is as high as its first crop, so where that is empty the rows under it read the
        enlarged thumbnail's top again; "paper": as high as its highest.
    """
    side = round(crops.shape[1] ** 0.5)
    shares = crop_shares(thumbnail, rows, columns, keep, temperature)
    shown = torch.ones_like(crops, dtype=torch.bool) if shown is None else shown
    there = shown.unflatten(1, (side, side))
    heights, widths = (there.any(d).sum(-1).reshape(rows, columns) for d in (2, 1))
    tops = heights[:, 0] if variant == "official" else heights.amax(1)
    high, wide = int(heights.amax(1).sum()), int(widths.amax(0).sum())
    large = interpolate(thumbnail.reshape(1, 1, side, side), size=(high, wide), mode="bilinear", align_corners=False)
    chosen = torch.zeros_like(shown)
    for number, share in enumerate(shares.tolist()):
        row, column = divmod(number, columns)
        places = shown[number].nonzero().flatten()
        if not len(places):
            continue
        top, left = int(tops[:row].sum()), int(widths[row, :column].sum())
        part = large[0, 0, top : top + int(heights[row, column]), left : left + int(widths[row, column])].flatten()
        scores = normalize(crops[number, places], dim=-1) + normalize(part, dim=-1)
        count = torch.tensor([int(len(places) * share)], device=scores.device)
        best = top_k_mask(scores[None], count, torch.ones_like(scores, dtype=torch.bool)[None])[0]
        chosen[number, places[best]] = True
    return chosen


def mosaic_order(
    kept: Tensor, shown: Tensor, rows: int, columns: int, variant: Literal["official", "paper"] = "official"
) -> Tensor:
    """int64 [m]: tokens of the crops in the order in which the language model reads them, -1 for the end of a line.

    Lines are those of the whole mosaic, empty ones too. A token's number is crop x (tokens of a crop) + its place.

    Parameters
    ----------
    kept, shown : bool [rows x columns, side x side], as of `crop_tokens` and `unpadded`.
    variant : "official": a token stands at the place that is its rank among its crop's shown tokens; "paper": at its own.
        Crops without padding come out alike.
    """
    tokens = kept.shape[1]
    side = round(tokens**0.5)
    crop, place = kept.nonzero(as_tuple=True)
    if variant == "official":
        stands = (shown.cumsum(1) - 1)[crop, place]
    else:
        stands = place
    grid = torch.full((rows * columns, tokens), -1, dtype=torch.int64, device=kept.device)
    grid[crop, stands] = crop * tokens + place
    mosaic = grid.reshape(rows, columns, side, side).transpose(1, 2).reshape(rows * side, columns * side)
    return torch.cat([torch.cat([line[line >= 0], line.new_tensor([-1])]) for line in mosaic])
