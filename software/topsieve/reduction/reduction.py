"""`Reduction`: the one result of every method, a sparse linear map over tokens with its bookkeeping.

Source: specification `reduction-interface`, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from topsieve.kernel_choice import uses_kernels
from topsieve.reduction.ordering import compact
from topsieve.reduction.sparse_map import SparseMap

Axis = Literal["token", "head", "page", "channel", "phrase"]
Scope = Literal["sequence", "kv_head"]


@dataclass(frozen=True)
class Reduction:
    """B rows of `n_in` tokens become K = `n_out` slots; the slots that hold a token come first in each row.

    Parameters
    ----------
    n_in : tokens (padded) before.
    keep : int64 [B, K], source of each slot; -1 for a synthetic slot and for padding.
    valid : bool [B, K], slots that hold a token.
    positions : int64 [B, K], original position of each slot, -1 for padding and for synthetic slots.
    size : float [B, K], input tokens each slot stands for, 0 for padding.
    scores : float [B, n_in], what was decided by.
    maps : by role ("x" for features, "k", "v"); an absent role is the plain gather of `keep`.
    axis : what the ids number.
    scope : what a row is: a sequence, or one key-value head of a sequence (heads of a sequence are neighbours).

    Raises
    ------
    ValueError
        on construction, for shapes that do not fit each other.
    """

    n_in: int
    keep: Tensor
    valid: Tensor
    positions: Tensor
    size: Tensor
    scores: Tensor
    maps: Mapping[str, SparseMap] = field(default_factory=dict)
    axis: Axis = "token"
    scope: Scope = "sequence"

    def __post_init__(self) -> None:
        if self.keep.dim() != 2:
            raise ValueError(f"keep must be [batch, slots], got {tuple(self.keep.shape)}")
        for name in ("valid", "positions", "size"):
            shape = getattr(self, name).shape
            if shape != self.keep.shape:
                raise ValueError(f"{name} must be {tuple(self.keep.shape)} like keep, got {tuple(shape)}")
        wanted = (self.keep.shape[0], self.n_in)
        if tuple(self.scores.shape) != wanted:
            raise ValueError(f"scores must be {wanted}, got {tuple(self.scores.shape)}")

    @classmethod
    def identity(
        cls,
        valid: Tensor,
        *,
        positions: Tensor | None = None,
        size: Tensor | None = None,
        scores: Tensor | None = None,
        axis: Axis = "token",
    ) -> Reduction:
        """The reduction that keeps every live token.

        Parameters
        ----------
        valid : bool [B, N], live tokens.
        positions : int64 [B, N]; counts from 0 where absent.
        size, scores : float [B, N]; ones and zeros where absent.
        axis : what the ids number.
        """
        keep, live = compact(valid)
        source = keep.clamp(min=0)
        here = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
        ones = torch.ones(valid.shape, device=valid.device)
        return cls(
            n_in=valid.shape[1],
            keep=keep,
            valid=live,
            positions=(here if positions is None else positions).gather(1, source).masked_fill(~live, -1),
            size=(ones if size is None else size).gather(1, source).masked_fill(~live, 0),
            scores=torch.zeros(valid.shape, device=valid.device) if scores is None else scores,
            axis=axis,
        )

    @property
    def n_out(self) -> int:
        """Slots (padded) after."""
        return self.keep.shape[1]

    @property
    def kept(self) -> Tensor:
        """int64 [B]: live slots that stand at a kept token (synthetic slots are not counted)."""
        return (self.valid & (self.keep >= 0)).sum(-1)

    @property
    def tokens_out(self) -> Tensor:
        """int64 [B]: live slots."""
        return self.valid.sum(-1)

    def map(self, role: str = "x") -> SparseMap:
        """The map of `role`; where none was given, the 0/1 gather of `keep`."""
        if role in self.maps:
            return self.maps[role]
        batch, out = (self.valid & (self.keep >= 0)).nonzero(as_tuple=True)
        source = self.keep[batch, out]
        return SparseMap(batch, out, source, torch.ones(source.shape, dtype=self.size.dtype, device=source.device))

    def apply(self, x: Tensor, role: str = "x") -> Tensor:
        """Reduce `x`: [B, n_in, ...] to [B, n_out, ...] of the same dtype; padding becomes 0.

        A role without a map is gathered, so kept rows come out bit-equal.
        """
        self._fits(x, self.n_in)
        if role in self.maps:
            return self.maps[role].apply(x, self.n_out)
        return self.gather(x)

    def gather(self, state: Tensor, fill: float = 0) -> Tensor:
        """Bring per-token `state` along: [B, n_in, ...] to [B, n_out, ...]; slots without a source hold `fill`."""
        self._fits(state, self.n_in)
        here = self.valid & (self.keep >= 0)
        # Without maps no slot is synthetic, and the slots that hold a token come first.
        if state.dim() == 3 and fill == 0 and not self.maps and state.numel() and uses_kernels(state):
            from topsieve_kernels.gather import gather_rows

            rows = gather_rows(state[:, None], self.keep[:, None], here.sum(-1, keepdim=True), backend="triton")
            return rows[:, 0]
        moved = state[self._rows(), self.keep.clamp(min=0)] if self.n_in else state.new_zeros(here.shape)
        return moved.masked_fill(~here.reshape(here.shape + (1,) * (state.dim() - 2)), fill)

    def scatter_back(self, y: Tensor, role: str = "x") -> Tensor:
        """Un-merge: [B, n_out, ...] to [B, n_in, ...], each slot copied to all its sources; tokens in no slot become 0."""
        self._fits(y, self.n_out)
        slots = self.slots(role)
        if not self.n_out:
            return y.new_zeros(slots.shape + y.shape[2:])
        moved = y[self._rows(), slots.clamp(min=0)]
        return moved.masked_fill((slots < 0).reshape(slots.shape + (1,) * (y.dim() - 2)), 0)

    def slots(self, role: str = "x") -> Tensor:
        """int64 [B, n_in]: the slot each token went to, -1 for none.

        A token that feeds several slots counts for the one that keeps it, else for the first of them.
        """
        entries = self.map(role)
        shape = (self.keep.shape[0], self.n_in)
        nowhere = self.n_out
        flat = torch.full((shape[0] * shape[1],), nowhere, dtype=torch.int64, device=self.keep.device)
        flat = flat.scatter_reduce(0, entries.batch * self.n_in + entries.source, entries.out, "amin")
        slots = flat.reshape(shape)
        batch, out = (self.valid & (self.keep >= 0)).nonzero(as_tuple=True)
        slots[batch, self.keep[batch, out]] = out
        return slots.masked_fill(slots == nowhere, -1)

    def sources(self, role: str = "x") -> Tensor:
        """bool [B, n_out, n_in]: which tokens each slot was made of. After `then`, these are the first one's tokens."""
        entries = self.map(role)
        made_of = torch.zeros((self.keep.shape[0], self.n_out, self.n_in), dtype=torch.bool, device=self.keep.device)
        made_of[entries.batch, entries.out, entries.source] = True
        return made_of

    def then(self, other: Reduction) -> Reduction:
        """This reduction followed by `other`: the maps multiply, role by role.

        `other` was decided on this one's slots, so its positions and sizes already speak of the first tokens; the
        composed scores are this one's.

        Raises
        ------
        ValueError
            `other` does not start from this one's slots.
        """
        if other.n_in != self.n_out or other.keep.shape[0] != self.keep.shape[0]:
            raise ValueError(
                f"the second reduction must start from {self.keep.shape[0]} x {self.n_out} slots, "
                f"got {other.keep.shape[0]} x {other.n_in}"
            )
        if other.axis != self.axis:
            raise ValueError(f"the second reduction must number {self.axis}s, got {other.axis}s")
        roles = sorted({*self.maps, *other.maps})
        return Reduction(
            n_in=self.n_in,
            keep=other.gather(self.keep, fill=-1),
            valid=other.valid,
            positions=other.positions,
            size=other.size,
            scores=self.scores,
            maps={role: other.map(role).after(self.map(role), self.n_out) for role in roles},
            axis=self.axis,
            scope=self.scope,
        )

    def log_size(self) -> Tensor:
        """float [B, K]: log(size), the bias of proportional attention; 0 for padding."""
        return torch.where(self.valid, self.size, torch.ones_like(self.size)).log()

    def is_prune(self) -> bool:
        """Whether every live slot of every role is one token, unweighted."""
        if bool((self.valid & (self.keep < 0)).any()):
            return False
        return all(entries.is_gather(self.valid) for entries in self.maps.values())

    def _rows(self) -> Tensor:
        return torch.arange(self.keep.shape[0], device=self.keep.device).unsqueeze(1)

    def _fits(self, x: Tensor, tokens: int) -> None:
        wanted = (self.keep.shape[0], tokens)
        if tuple(x.shape[:2]) != wanted:
            raise ValueError(f"expected a tensor of shape {(*wanted, '...')}, got {tuple(x.shape)}")
