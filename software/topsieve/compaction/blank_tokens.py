"""Follow the Flow's operators on a text encoder's output: blank redundant tokens, repair leaking ones.

Specification `methods-vision`, section 12.1. The length stays; what is blanked becomes the empty prompt's token there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Gather, Projection


def keep_only(hidden: Tensor, blank: Tensor, kept: Tensor) -> Tensor:
    """`hidden` [N, D] where `kept` (bool [N]), else the encoded empty prompt `blank` [N, D]."""
    return torch.where(kept.unsqueeze(-1), hidden, blank)


def without_redundant(hidden: Tensor, blank: Tensor, items: list[tuple[list[int], list[int]]]) -> Tensor:
    """Of each item (its places, those that stand for it), the other places blanked."""
    kept = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    for places, standing in items:
        kept[places] = False
        kept[standing] = True
    return keep_only(hidden, blank, kept)


def repaired(hidden: Tensor, places: list[int], alone: Tensor, alone_places: list[int]) -> Tensor:
    """`hidden` [N, D] with the tokens at `places` taken from the encoding of the item alone, in order.

    Raises
    ------
    ValueError
        there are not as many places there as here.
    """
    if len(places) != len(alone_places):
        raise ValueError(f"an item of {len(places)} tokens, and {len(alone_places)} alone")
    out = hidden.clone()
    out[places] = alone[alone_places]
    return out


def redundant(hidden: Tensor, weight: Tensor, bias: float = 0.0, threshold: float = 0.5) -> Tensor:
    """bool [N]: tokens whose sigmoid(weight h + bias) is over `threshold`, by a linear classifier `weight` [D]."""
    return torch.sigmoid(hidden @ weight + bias) > threshold


def merged(hidden: Tensor, places: list[int]) -> Tensor:
    """`hidden` [N, D] with the mean of the tokens at `places` at each of them."""
    out = hidden.clone()
    out[places] = hidden[places].mean(0)
    return out


def dropped(hidden: Tensor, kept: Tensor) -> Tensor:
    """The `kept` (bool [N]) tokens of `hidden` [N, D] alone: shorter, and not what blanking gives, because the image model
    attends to blank tokens too."""
    return hidden[kept]


def replacement_work(tokens: int, replaced: int, width: int, layer: int = -1) -> tuple[Op, ...]:
    """The classifier's look at every token, and the vectors that are written over."""
    look = Projection(layer=layer, tokens=tokens, inputs=width, outputs=1, role="other")
    moved = (Gather(layer=layer, rows=replaced, width=width, bits=16),) if replaced else ()
    return (look, *moved)
