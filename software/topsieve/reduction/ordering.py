"""The one tie rule: the largest scores win, of equal scores the lowest index, and survivors ascend.

Every selector goes through `stable_top_k`; the golden models, the hardware and the kernels follow the same rule
(specification `reduction-interface`, section 4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve.kernel_choice import uses_kernels


def live_rank(live: Tensor) -> Tensor:
    """int64 [B, N]: how many live items stand before each live item of its row; -1 for the others."""
    return (live.cumsum(-1) - 1).masked_fill(~live, -1)


def compact(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The ids of the chosen items in ascending order.

    Parameters
    ----------
    chosen : bool [B, N].

    Returns
    -------
    ids : int64 [B, K], K the largest count of a row; -1 after a row's last.
    valid : bool [B, K].
    """
    counts = chosen.sum(-1)
    width = int(counts.max()) if counts.numel() else 0
    valid = torch.arange(width, device=chosen.device) < counts.unsqueeze(-1)
    ids = torch.full(valid.shape, -1, dtype=torch.int64, device=chosen.device)
    batch, source = chosen.nonzero(as_tuple=True)
    ids[batch, live_rank(chosen)[batch, source]] = source
    return ids, valid


def top_k_mask(scores: Tensor, counts: Tensor, eligible: Tensor) -> Tensor:
    """bool [B, N]: the `counts` largest of the eligible scores of each row.

    Parameters
    ----------
    scores : float [B, N]; not-a-number ranks with minus infinity.
    counts : int64 [B]; more than a row's eligible items take all of them.
    eligible : bool [B, N].
    """
    clean = scores.masked_fill(scores.isnan(), float("-inf"))
    if _one_count(scores, counts):
        return _mask_from_kernel(clean, int(counts[0]), eligible)
    by_score = clean.sort(dim=-1, descending=True, stable=True).indices
    # A second stable sort moves the ineligible behind, also where an eligible score is minus infinity.
    eligible_first = (~eligible).gather(-1, by_score).to(torch.int8).sort(dim=-1, stable=True).indices
    order = by_score.gather(-1, eligible_first)
    taken = torch.arange(scores.shape[-1], device=scores.device) < counts.unsqueeze(-1)
    return torch.zeros_like(eligible).scatter(-1, order, taken.expand(order.shape)) & eligible


def _one_count(scores: Tensor, counts: Tensor) -> bool:
    """Whether a kernel can do it: the same count for every row."""
    return uses_kernels(scores) and scores.numel() > 0 and bool((counts == counts[0]).all()) and int(counts[0]) >= 0


def _mask_from_kernel(clean: Tensor, count: int, eligible: Tensor) -> Tensor:
    from topsieve_kernels.selection import topk_select

    # A kernel takes what is not a number last of all: behind an eligible minus infinity.
    ranked = clean.masked_fill(~eligible, float("nan"))
    chosen = topk_select(ranked, count, backend="triton").indices.long()
    return torch.zeros_like(eligible).scatter(-1, chosen, True) & eligible


def stable_top_k(scores: Tensor, counts: Tensor, eligible: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of the `counts` largest eligible scores of each row, ascending, ragged over the batch.

    Parameters and returns as of `top_k_mask` and `compact`.
    """
    return compact(top_k_mask(scores, counts, eligible))
