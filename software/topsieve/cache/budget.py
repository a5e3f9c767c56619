"""How many slots of the cache a head keeps, and which of them always stay."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve.reduction.budget import Base, Budget, Rounding, exact, rounded


@dataclass(frozen=True)
class Quota:
    """Slots that stay: `total`, of them the `first` oldest and the `last` newest whatever their score."""

    total: int
    first: int
    last: int


@dataclass(frozen=True)
class CacheBudget:
    """Slots of one head of one sequence; exactly one of `keep` and `capacity`.

    Parameters
    ----------
    keep : share of the prompt's tokens, in (0, 1].
    capacity : slots.
    first : oldest slots that always stay (attention sinks).
    last : newest slots that always stay; they count inside the total.
    last_share : share of the total that the newest slots are, in place of `last`.
    excess : the slots beyond the total that are tolerated; nothing is removed up to there.
    rounding : of shares.
    shortest : prompts under this length keep everything.
    """

    keep: float | None = None
    capacity: int | None = None
    first: int = 0
    last: int = 0
    last_share: float | None = None
    excess: int = 0
    rounding: Rounding = Rounding.FLOOR
    shortest: int = 0

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.capacity is None):
            raise ValueError("a cache budget takes exactly one of keep and capacity")

    def total(self, prompt: int) -> int:
        """Slots in all, at least 1."""
        if self.capacity is not None:
            return max(self.capacity, 1)
        return Budget(ratio=self.keep, base=Base.INITIAL, rounding=self.rounding).keep_count(prompt, prompt)

    def quota(self, slots: int, prompt: int) -> Quota:
        """What stays of `slots` live ones of a sequence whose prompt had `prompt` tokens."""
        total = self.total(prompt)
        if slots <= total + self.excess or prompt < self.shortest:
            return Quota(slots, 0, 0)
        last = self.last if self.last_share is None else rounded(exact(self.last_share) * total, self.rounding)
        last = min(last, total)
        return Quota(total, min(self.first, total - last), last)


@dataclass(frozen=True)
class HalvingBudget(CacheBudget):
    """Scissorhands: one slot too many makes a whole part of the budget go; specification `methods-more`, Scissorhands.

    Parameters
    ----------
    drop_share : the part, of which the count rounds down; a prompt, many slots too long, is cut to the budget.
    """

    drop_share: float = 0.5

    def quota(self, slots: int, prompt: int) -> Quota:
        plain = super().quota(slots, prompt)
        budget = self.total(prompt)
        if slots != budget + 1:
            return plain
        total = max(budget - rounded(exact(self.drop_share) * budget, Rounding.FLOOR), 1)
        return Quota(total, min(plain.first, total), min(plain.last, total))


@dataclass(frozen=True)
class PyramidBudget(CacheBudget):
    """PyramidKV: layers near the input keep more, in an arithmetic series; specification `methods-more`, PyramidKV.

    With b = total - window: the last layer keeps b // beta, the first 2 b - that, beside the window; where the first
    would keep more than the prompt has, it keeps all and the last layer what then makes the mean b. A prompt shorter
    than 2 b is cut to b in all layers.

    Parameters
    ----------
    layer, layers : place in the model.
    beta : steepness.
    """

    layer: int = 0
    layers: int = 1
    beta: int = 20

    def quota(self, slots: int, prompt: int) -> Quota:
        total = self.total(prompt)
        if slots <= total + self.excess and prompt <= total:
            return Quota(slots, 0, 0)
        window = min(self.last, total)
        past = prompt - window
        mean = total - window
        count = mean
        if prompt >= 2 * mean:
            low = mean // self.beta
            high = 2 * mean - low
            if high >= past:
                high = past
                low = 2 * mean - high
            count = high - self.layer * ((high - low) // max(self.layers - 1, 1))
        keep = min(window + count, slots)
        return Quota(keep, 0, min(window, keep))
