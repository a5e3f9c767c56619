"""`Exit`: keep the sentences that a judge says help to answer the question."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from topsieve.corpus import sentences
from topsieve.methods.checks import check_choice, check_range
from topsieve.prompt.lowering import joined
from topsieve.prompt.roles import Compressed, Prompt, PromptOnly, Run, pruned
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class Exit(PromptOnly):
    """EXIT: keep the sentences that a judge says help to answer the question.

    Hwang et al., ACL Findings 2025; specification `methods-text`, section 4.

    The judge sees question, whole context and one sentence, and scores yes and no; sentences whose probability of yes
    reaches the threshold stay, in order. Nothing may stay. Signals: two scores a sentence.

    Differences from the published code: sentences end where `topsieve.corpus.sentences` says, not where spaCy does.

    Parameters
    ----------
    threshold : smallest probability of yes of a sentence that stays; equal scores at 0.5 stay.
    joint : how documents come together: "flat": all sentences in one line; "documents": those of a document in a line of
        its own, empty lines between them, as the authors' evaluation writes them.
    variant : "official": a language model reads question and context anew for every sentence, as the published code does;
        "paper": once, and the sentences behind them take its keys and values. The scores are the same, the work is not.
    """

    name: ClassVar[str] = "exit"

    threshold: float = 0.5
    joint: Literal["flat", "documents"] = "flat"
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_range(self.name, "threshold", self.threshold, 0, 1)
        check_choice(self.name, "joint", self.joint, ("flat", "documents"))
        check_choice(self.name, "variant", self.variant, ("official", "paper"))

    def scorer(self) -> Any:
        """MiniLM with this package's scale and border."""
        from topsieve.prompt.judge import minilm_judge

        return minilm_judge()

    def prompt(self, prompt: Prompt, scorer: Any, run: Run) -> Compressed:
        """Keep sentences of the contexts, each context a document."""
        documents = [sentences(context) for context in prompt.contexts]
        units = tuple(sentence for document in documents for sentence in document)
        context = " ".join(units) if self.joint == "flat" else "\n".join(prompt.contexts)
        run = replace(run, share_prefix=self.variant == "paper")
        logits, passes = scorer.logits(prompt.question, context, units, run) if units else ([], [])
        scores = [yes_probability(yes, no) for yes, no in logits]
        kept = [number for number, score in enumerate(scores) if score >= self.threshold]
        decisions = [(Threshold(layer=0, n=len(units), kept=len(kept)), ())] if units else []
        return Compressed(self._written(documents, set(kept)), units, pruned(scores, kept), joined(passes, decisions))

    def _written(self, documents: list[tuple[str, ...]], kept: set[int]) -> str:
        lines = []
        start = 0
        for document in documents:
            lines.append(" ".join(text for place, text in enumerate(document, start=start) if place in kept))
            start += len(document)
        return (" " if self.joint == "flat" else "\n\n").join(filter(None, lines))


def yes_probability(yes: float, no: float) -> float:
    """Of a softmax over the two scores."""
    return 1 / (1 + math.exp(min(no - yes, 700.0)))
