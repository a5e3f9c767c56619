"""How many tokens stay: exactly one way of saying it, with its base and its rounding written out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction


class Rounding(StrEnum):
    """Rounding of a keep count; published codes disagree (specification `reduction-interface`, section 4.5)."""

    FLOOR = "floor"
    CEIL = "ceil"
    HALF_EVEN = "half_even"
    HALF_UP = "half_up"


class Base(StrEnum):
    """What a ratio is a ratio of."""

    INITIAL = "initial"
    CURRENT = "current"


def exact(number: float | Fraction) -> Fraction:
    """`number` as the decimal its writer meant: 0.7 is 7/10, so that counts carry no float error."""
    return number if isinstance(number, Fraction) else Fraction(str(number))


def rounded(value: Fraction, rounding: Rounding) -> int:
    """`value` as an integer under `rounding`, without float error."""
    if rounding is Rounding.FLOOR:
        return math.floor(value)
    if rounding is Rounding.CEIL:
        return math.ceil(value)
    if rounding is Rounding.HALF_EVEN:
        return round(value)
    return math.floor(value + Fraction(1, 2))


@dataclass(frozen=True)
class Budget:
    """Exactly one of `count`, `ratio`, `remove` and `threshold`.

    Parameters
    ----------
    count : tokens to keep.
    ratio : share of the base to keep, in [0, 1]; a float is taken as the decimal the user wrote, see `exact`.
    remove : tokens to remove from the base.
    threshold : scores under it are removed; the count then follows from the data.
    base : what `ratio` and `remove` refer to.
    rounding : of ratio x base.
    minimum : never fewer tokens than this (or all of them, if there are fewer).
    multiple_of : kept counts are rounded up to a multiple (hardware).
    protect_first, protect_last : tokens at the ends that always stay and count inside the budget.
    ratio_excludes_protected : the ratio applies to the unprotected tokens only, and the protected come on top.
    reserve : slots of the count that a synthetic token takes; nothing is taken off where all tokens stay.
    """

    count: int | None = None
    ratio: float | Fraction | None = None
    remove: int | None = None
    threshold: float | None = None
    base: Base = Base.CURRENT
    rounding: Rounding = Rounding.FLOOR
    minimum: int = 1
    multiple_of: int = 1
    protect_first: int = 0
    protect_last: int = 0
    ratio_excludes_protected: bool = False
    reserve: int = 0

    def __post_init__(self) -> None:
        given = [n for n in ("count", "ratio", "remove", "threshold") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a budget takes exactly one of count, ratio, remove, threshold; got {given or 'none'}")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio must be in [0, 1], got {self.ratio}")
        for name in ("count", "remove", "minimum", "protect_first", "protect_last", "reserve"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if self.multiple_of < 1:
            raise ValueError(f"multiple_of must be at least 1, got {self.multiple_of}")

    def keep_count(self, current: int, initial: int) -> int:
        """Tokens kept out of `current` live ones, when the sequence started with `initial`.

        Raises
        ------
        ValueError
            for a threshold budget, whose count follows from the data.
        """
        if self.threshold is not None:
            raise ValueError("a threshold budget has no count of its own")
        protected = min(current, self.protect_first + self.protect_last)
        if self.count is not None:
            wanted = self.count
        elif self.remove is not None:
            wanted = (initial if self.base is Base.INITIAL else current) - self.remove
        else:
            base = initial if self.base is Base.INITIAL else current
            share = exact(self.ratio or 0)
            if self.ratio_excludes_protected:
                wanted = protected + rounded(share * max(base - protected, 0), self.rounding)
            else:
                wanted = rounded(share * base, self.rounding)
        if wanted < current:
            wanted -= self.reserve
        wanted = max(wanted, self.minimum, protected)
        wanted = -(-wanted // self.multiple_of) * self.multiple_of
        return min(wanted, current)
