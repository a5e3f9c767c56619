"""`Transform`: what every transform is, and `Outcome`: what one run of it on real input gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from topsieve.transforms.workload import Workload
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace


@dataclass(frozen=True)
class Outcome:
    """One run of a transform beside the run without it, on the same input.

    Parameters
    ----------
    changed, plain : what attention was asked to do with the transform, and without.
    facts : what was measured, by name.
    effect : the main ones of these as one line of text.
    """

    changed: Workload
    plain: Workload
    facts: Mapping[str, float | int]
    effect: str


class Transform(ABC):
    """Keeps the tokens, changes the work: an algorithm with its parameters, and a run of it on a real model and text.

    A transform is a frozen dataclass in a file of its own. Its fields are its parameters; what its specification leaves
    open is one of them.
    """

    name: ClassVar[str]
    attention: ClassVar[str]  # what changes for attention, in a few words

    @abstractmethod
    def run(self) -> Outcome:
        """Run with and without the transform; equal parameters give equal outcomes."""

    def trace(self) -> Trace:
        """The operations of a run with the transform, for `topsieve_sim.engine.simulate`."""
        return self.run().changed.trace()

    def need(self, field: str, holds: bool, allowed: str) -> None:
        """Raise `InputError`, naming the parameter `field`, unless the condition on it `holds`."""
        if not holds:
            value = getattr(self, field)
            raise InputError("wrong value", source=f"transform {self.name}", field=field, value=value, allowed=allowed)

    def need_counts(self, low: int = 1, **counts: int) -> None:
        """Each of the named parameters is at least `low`."""
        for field, value in counts.items():
            self.need(field, value >= low, f"an integer of at least {low}")
