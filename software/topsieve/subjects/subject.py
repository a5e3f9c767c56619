"""`Subject`: a model with its inputs and its measures of quality, on which methods are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from topsieve.corpus import Corpus
from topsieve.reduction.roles import BitPlan, Method
from topsieve_sim.trace import Trace


@dataclass(frozen=True)
class Inputs:
    """What a comparison feeds a subject with.

    Parameters
    ----------
    corpus : text of the user's; None takes the subject's own inputs.
    paragraphs : inputs that quality is measured on, where the subject's own are taken.
    sequences : inputs that run on the accelerator.
    seed : of random methods and of inputs that are drawn.
    """

    corpus: Corpus | None = None
    paragraphs: int = 48
    sequences: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Metric:
    """A measure of quality: `title` heads its column, `label` says on a plot what it is, `lower` whether less is better."""

    title: str
    label: str
    lower: bool = False


@dataclass(frozen=True)
class Observation:
    """A method at work on the inputs that run on the accelerator.

    Parameters
    ----------
    trace : with operands.
    tokens : a layer, summed over the sequences: `attention`, `ffn`, `heads`; and the count of `sequences`.
    words : the tokens of the first sequence as text.
    survival : a layer, one letter a word: a letter of `topsieve.subjects.survival`.
    more : further plain data for the result, by name.
    """

    trace: Trace
    tokens: Mapping[str, Any]
    words: tuple[str, ...]
    survival: tuple[str, ...]
    more: Mapping[str, Any]


class Subject(Protocol):
    """A model behind one name of `topsieve.subjects.registry`. Made with `(name, inputs)`, which loads nothing heavy."""

    def facts(self) -> dict[str, Any]:
        """Everything that results depend on but method and accelerator, as plain data.

        Holds at least `model`, `model_digest`, `corpus`, `paragraphs`, `sequences` and `seed`.
        """
        ...

    def load(self) -> None:
        """Load the model and measure it unreduced; `longest`, `metrics`, `observe` and `quality` need it."""
        ...

    @property
    def longest(self) -> int:
        """Tokens that the accelerator must hold at once."""
        ...

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """By name in the result of `quality`, the measures that tables show; the first is the one that is plotted."""
        ...

    def observe(self, method: Method, bits: BitPlan) -> Observation:
        """Run `method` and lower what happened, with operands of the widths `bits` where the method does not say.

        Raises
        ------
        InputError
            the method does not act on this kind of model.
        """
        ...

    def quality(self, method: Method) -> dict[str, float | int]:
        """The measures of `metrics` under `method`, and further numbers."""
        ...
