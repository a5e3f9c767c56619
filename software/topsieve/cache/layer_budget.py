"""`LayerBudget`: how many layers run at a position, fewer and fewer along the sequence; SkipDecode's schedule."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from topsieve.reduction.budget import Rounding, rounded


@dataclass(frozen=True)
class LayerBudget:
    """From `most` layers at the first generated position to `least` at the last, on a straight line.

    Specification `methods-text`, section 8. The first `warm_up` layers always run, the others of the budget are the last
    ones of the model. The sets of later positions are subsets of those of earlier ones, so a layer that runs finds the
    keys of all positions before it.

    Parameters
    ----------
    most, least : layers, `warm_up` included.
    warm_up : layers at the input that always run.
    whole_prompt : all layers read the prompt; else `most` of them.
    max_length : the paper's T, in columns of the padded batch; None for the prompt and `new_tokens` more.
    new_tokens : see `max_length`.
    rounding : of the straight line.
    """

    most: int
    least: int
    warm_up: int = 1
    whole_prompt: bool = True
    max_length: int | None = None
    new_tokens: int = 64
    rounding: Rounding = Rounding.HALF_EVEN

    def count(self, position: int, prompt: int, layers: int) -> int:
        """Layers that run at column `position` (from 0) of a sequence whose prompt has `prompt` columns."""
        most, least = min(self.most, layers), min(self.least, layers)
        if position < prompt:
            return layers if self.whole_prompt else most
        length = prompt + self.new_tokens if self.max_length is None else self.max_length
        share = min(Fraction(position - prompt, max(length - prompt - 1, 1)), Fraction(1))
        return min(max(rounded((1 - share) * most + share * least, self.rounding), least), most)

    def executed(self, position: int, prompt: int, layers: int) -> tuple[int, ...]:
        """The layers that run there, ascending, of a model of `layers`."""
        count = self.count(position, prompt, layers)
        first = max(self.warm_up, layers - (count - self.warm_up))
        return (*range(min(self.warm_up, layers)), *range(first, layers))
