"""What a validation row is: one published number, the function that computes ours, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from topsieve_sim.validation.workbench import Workbench

# A predicted number agrees within this share of the published one unless the published one states an uncertainty of
# its own. One share for every row, so that no row has a bound made for it.
AGREEMENT = 0.10


class Status(StrEnum):
    """How much freedom our number had."""

    EXACT = "exact"
    """Arithmetic on the same input: every printed digit must be equal."""
    RECOMPUTED = "recomputed"
    """The authors' own formula, evaluated here; differs by the sampling error alone."""
    PREDICTED = "predicted"
    """A result of the model; nothing in the model was fitted to it."""
    CALIBRATED = "calibrated"
    """A constant of the model was fitted to this number or to one that follows from it."""


class Verdict(StrEnum):
    """How ours compares."""

    EQUAL = "equal"
    AGREES = "agrees"
    MISS = "miss"
    UNPUBLISHED = "no published number"


@dataclass(frozen=True)
class Check:
    """One row.

    name : unique. unit : of both numbers, empty for ratios and counts.
    published : None where the row shows one of our numbers beside published ones of the same section.
    source : where in the paper, its released files, or the specification `accelerator` the published number stands.
    decimals : digits after the point that are printed, and compared in an exact row.
    uncertainty : of the published number, as a share of it; 0 where none is stated.
    reason : why ours misses; empty where it does not.
    """

    name: str
    unit: str
    published: float | None
    compute: Callable[[Workbench], float]
    source: str
    status: Status = Status.PREDICTED
    decimals: int = 2
    uncertainty: float = 0.0
    reason: str = ""

    @property
    def bound(self) -> float:
        """Largest relative difference that agrees; 0 in an exact row."""
        if self.status is Status.EXACT:
            return 0.0
        if self.status is Status.RECOMPUTED:
            return self.uncertainty
        return max(AGREEMENT, self.uncertainty)


@dataclass(frozen=True)
class Section:
    """Rows on one subject; `text` states the assumptions they share."""

    title: str
    text: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Unmodelled:
    """A published number that nothing here computes, and what that would take."""

    name: str
    published: str
    source: str
    needs: str


@dataclass(frozen=True)
class Result:
    """A check and our number for it."""

    check: Check
    ours: float

    @property
    def ratio(self) -> float | None:
        """Ours over published; None without a published number, or where it is 0."""
        return self.ours / self.check.published if self.check.published else None

    @property
    def verdict(self) -> Verdict:
        """The comparison under the check's bound."""
        check = self.check
        if check.published is None:
            return Verdict.UNPUBLISHED
        if check.status is Status.EXACT:
            same = round(self.ours, check.decimals) == round(check.published, check.decimals)
            return Verdict.EQUAL if same else Verdict.MISS
        return Verdict.AGREES if abs(self.ours - check.published) <= check.bound * check.published else Verdict.MISS


def run_section(section: Section, bench: Workbench) -> tuple[Result, ...]:
    """Every row of `section`, computed on `bench`.

    Raises
    ------
    InputError
        a workload does not fit the machine.
    """
    return tuple(Result(check, float(check.compute(bench))) for check in section.checks)
