"""What a prompt method takes and returns. It chooses among units of text: words, phrases or sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import AttentionPolicy, BitPlan, Method, ModelShape, Stage
from topsieve_sim.trace import Trace

# Tokens that the model which reads the prompt makes of a text.
TokenCount = Callable[[str], int]


@dataclass(frozen=True)
class Prompt:
    """What may be shortened, and the question that stays as it is.

    Parameters
    ----------
    contexts : one text or several documents.
    question : what the contexts are read for; scorers may look at it.
    """

    contexts: tuple[str, ...]
    question: str = ""


@dataclass(frozen=True)
class Run:
    """How the scorer runs.

    Parameters
    ----------
    operands : keep queries, keys and values of the scorer in the trace.
    bits : widths of these, see `topsieve.lower`.
    count : tokens that the model behind the method makes of a text.
    share_prefix : where passes of a causal scorer begin alike, the later ones take keys and values from the first.
    """

    operands: bool = False
    bits: BitPlan | None = None
    count: TokenCount | None = None
    share_prefix: bool = False


@dataclass(frozen=True)
class Compressed:
    """A shortened prompt.

    Parameters
    ----------
    text : what is left of the contexts.
    units : the words, phrases or sentences that the method chose among, in order.
    reduction : over the units, one row, axis "phrase"; `scores` are what was decided by.
    work : what the scorer ran and what it took to decide, sequences counted by passes; None where nothing ran.
    """

    text: str
    units: tuple[str, ...]
    reduction: Reduction
    work: Trace | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        """Numbers of the units that stay, ascending."""
        return tuple(self.reduction.keep[0].tolist())


@runtime_checkable
class PromptMethod(Method, Protocol):
    """A method that shortens prompts: a frozen dataclass."""

    def scorer(self) -> Any:
        """The scorer that is used where none is given, from what this machine has; loads models."""
        ...

    def prompt(self, prompt: Prompt, scorer: Any, run: Run) -> Compressed:
        """Shorten `prompt` by what `scorer` says."""
        ...


class PromptOnly:
    """Base of methods that shorten the prompt and do nothing inside a model."""

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        """None."""
        return ()

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        """Nothing changes."""
        return AttentionPolicy()


def acts_on_prompts(method: object) -> bool:
    """Whether `method` shortens prompts."""
    return isinstance(method, PromptOnly)


def pruned(scores: Sequence[float], kept: Sequence[int]) -> Reduction:
    """The reduction to the units `kept` (ascending) of those with `scores`."""
    keep = torch.tensor([list(kept)], dtype=torch.int64).reshape(1, -1)
    return Reduction(
        n_in=len(scores),
        keep=keep,
        valid=torch.ones(keep.shape, dtype=torch.bool),
        positions=keep,
        size=torch.ones(keep.shape),
        scores=torch.tensor([list(scores)], dtype=torch.float64).reshape(1, -1),
        axis="phrase",
    )


def unchanged(text: str, units: Sequence[str] = ()) -> Compressed:
    """Nothing was asked for, so nothing ran and every unit stays."""
    return Compressed(text, tuple(units), pruned([0.0] * len(units), range(len(units))))
