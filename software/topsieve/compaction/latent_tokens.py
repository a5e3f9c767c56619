"""TiTok's tokens: learned latents beside the patches, of which the nearest codes on the unit sphere are kept.

Specification `methods-vision`, section 14a.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ArgmaxRow, Norm, Similarity


def latent_rows(encoded: Tensor, latents: int, *, legacy: bool = True) -> Tensor:
    """The last `latents` rows of `encoded` [B, N, w] as channels first: [B, w, latents].

    Parameters
    ----------
    legacy : as the released weights expect it, the numbers are read anew as w x latents, not transposed.
    """
    rows = encoded[:, -latents:]
    return rows.reshape(len(rows), rows.shape[2], latents) if legacy else rows.transpose(1, 2)


def nearest_codes(latents: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The code of each latent: its number, int64 [...], and its vector of length 1, float [..., d].

    Both are scaled to length 1 first; of equally near codes the lowest is taken.

    Parameters
    ----------
    latents : float [..., d]. codes : float [K, d].
    """
    unit, book = normalize(latents.float(), dim=-1), normalize(codes.float(), dim=-1)
    distance = (unit**2).sum(-1, keepdim=True) + (book**2).sum(-1) - 2 * unit @ book.T
    number = distance.argmin(-1)
    return number, torch.nn.functional.embedding(number, book)


def nearest_codes_work(latents: int, codes: int, width: int, layer: int = -1) -> tuple[Op, ...]:
    """Of one image."""
    return (
        Norm(layer=layer, rows=latents, width=width),
        Similarity(layer=layer, rows_a=latents, rows_b=codes, width=width),
        ArgmaxRow(layer=layer, rows=latents, cols=codes),
    )
