"""`SelectiveContext`: drop what a language model could have guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from topsieve.corpus import sentences
from topsieve.methods.checks import check_choice, check_share
from topsieve.prompt.information import Informed
from topsieve.prompt.lowering import Decided, joined
from topsieve.prompt.phrases import phrase_spans
from topsieve.prompt.roles import Compressed, Prompt, PromptOnly, Run, pruned, unchanged
from topsieve_sim.trace import TopKScope
from topsieve_sim.trace.ops import Merge, Threshold, TopK


@dataclass(frozen=True)
class SelectiveContext(PromptOnly):
    """Selective-Context: drop what a language model could have guessed.

    Li et al., EMNLP 2023; specification `methods-more`, section D.

    A causal model reads each sentence by itself. The self-information of a phrase is the mean over its tokens; a token
    that reaches into two phrases counts for both. Phrases under a percentile of all phrases go. Signals: probabilities of
    the text's own tokens.

    Differences from the published code: phrases are runs of words between function words and punctuation
    (`topsieve.prompt.phrases`), not the noun chunks of spaCy; sentences end where `topsieve.corpus.sentences` says.

    Parameters
    ----------
    keep : share of the units that stay, in (0, 1]; the percentile is at 1 - keep (0.35 in the published code).
    unit : what stays or goes as a whole: "phrase", "sentence", or "token" of the language model.
    """

    name: ClassVar[str] = "selective-context"

    keep: float = 0.65
    unit: Literal["phrase", "sentence", "token"] = "phrase"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_choice(self.name, "unit", self.unit, ("phrase", "sentence", "token"))

    def scorer(self) -> Any:
        """`byte-gpt`."""
        from topsieve.prompt.information import byte_gpt_information

        return byte_gpt_information()

    def prompt(self, prompt: Prompt, scorer: Any, run: Run) -> Compressed:
        """Shorten all contexts as one text."""
        text = "\n\n".join(prompt.contexts)
        if self.keep == 1:
            return unchanged(text, (text,))
        units: list[str] = []
        scores: list[float] = []
        decisions: list[Decided] = []
        passes = []
        for sentence in sentences(text):
            tokens, trace = scorer.information(sentence, run)
            passes.append(trace)
            spans = self._spans(sentence, tokens)
            if units and self.unit != "sentence":
                units[-1] += " "
            units += [sentence[start:end] for start, end in spans]
            scores += [mean_information(tokens, start, end) for start, end in spans]
            decisions.append((Merge(layer=0, sources=len(tokens), targets=len(spans), width=1), ()))
        if not units:
            return unchanged(text)
        limit = float(np.nanpercentile(np.array(scores), 100 * (1 - self.keep)))
        kept = [number for number, score in enumerate(scores) if not score < limit]
        statistic = TopK(layer=0, n=len(units), k=len(kept), scope=TopKScope.TOKEN)
        decisions += [(statistic, scores), (Threshold(layer=0, n=len(units), kept=len(kept)), ())]
        between = " " if self.unit == "sentence" else ""
        written = between.join(units[number] for number in kept).strip()
        return Compressed(written, tuple(units), pruned(scores, kept), joined(passes, decisions))

    def _spans(self, sentence: str, tokens: Sequence[Informed]) -> list[tuple[int, int]]:
        """The units of a sentence as characters, each with the blank in front of it, or behind the last."""
        if self.unit == "sentence":
            return [(0, len(sentence))]
        if self.unit == "token":
            return sorted({(token.start, token.end) for token in tokens})
        return phrase_spans(sentence)


def mean_information(tokens: Sequence[Informed], start: int, end: int) -> float:
    """Mean over the tokens that share characters with `start` to `end`."""
    inside = [token.information for token in tokens if token.start < end and token.end > start]
    return sum(inside) / len(inside) if inside else float("nan")
