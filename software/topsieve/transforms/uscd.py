"""`Uscd`: subtract what a prompt without its examples would say, where the model is unsure."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from topsieve.subjects.byte_gpt import text
from topsieve.transforms.decoder import ByteDecoder, byte_decoder, fits, picks
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Pass, Workload, generation

NOTES = re.compile(text.NOTE + rb"..", re.DOTALL)


def contrast(
    standard: Tensor,
    lame: Tensor,
    *,
    deviation: float = 0.0035,
    plausible: float = 1 / 3,
    weights: Sequence[float] = (1.0, -0.7),
) -> tuple[Tensor, bool]:
    """Scores float [V] from two distributions float [V], and whether they were contrasted.

    Where the standard one's deviation (unbiased) is above `deviation`, the model is sure: log P. Else tokens under
    `plausible` x mean of P have no part, and the score is the logarithm of the weighted sum; of what is not positive it
    is minus infinity.
    """
    if float(standard.std(unbiased=True)) > deviation:
        return standard.log(), False
    kept = standard >= plausible * standard.mean()
    argument = weights[0] * standard.where(kept, 0) + weights[1] * lame.where(kept, 0)
    return argument.clamp(min=0).log(), True


def decode(
    decoder: ByteDecoder,
    standard: Sequence[int],
    lame: Sequence[int],
    count: int,
    *,
    tied: bool = True,
    **rule: float | Sequence[float],
) -> tuple[list[int], int]:
    """`count` tokens behind `standard`, the best of each step's scores, and how many steps were contrasted.

    Both prompts run at each step and both go on with the chosen token. Not `tied`, where nothing is contrasted the lame
    prompt goes on with a token of its own, as published, so the two texts drift apart.
    """
    caches = decoder.fresh(), decoder.fresh()
    ids = [list(standard), list(lame)]
    out: list[int] = []
    contrasted = 0
    for _ in range(count):
        shares = [
            decoder.forward(torch.tensor([row]), cache)[0, -1].double().softmax(-1)
            for row, cache in zip(ids, caches, strict=True)
        ]
        scores, used = contrast(*shares, **rule)  # type: ignore[arg-type]
        contrasted += used
        out.append(int(scores.argmax()))
        own = out[-1] if tied or used else int(shares[1].argmax())
        ids = [[out[-1]], [own]]
    return out, contrasted


@dataclass(frozen=True)
class Uscd(Transform):
    """USCD: uncertainty-aware selective contrastive decoding with a second prompt that lacks its examples.

    Wang et al., 2024; specification `methods-text`, section 18. Two prompts run side by side. Where the first one's
    distribution is flat (a small standard deviation), the second one's is subtracted from it; elsewhere it decides alone.
    Two rows run at every step, so attention doubles whether they are contrasted or not.

    The examples are notes that byte-gpt recalls (`@Kv` in the prompt, `?K` at its end); the lame prompt has none of them
    and is as long, because more text before it takes their place. The best token is taken instead of drawing one.

    Parameters
    ----------
    deviation : above it there is no contrast. The published 0.0035 is for 49,152 tokens; for 256 it is multiplied by
        the root of the ratio, as the largest possible deviation is.
    plausible, second_weight : of the rule: bar in means, weight of the lame prompt (the first one's is 1).
    variant : "paper": both prompts go on with the chosen token; "official": where nothing is contrasted, the lame one goes on
        with its own.
    sequences, prompt, notes, new_tokens, seed : questions, their bytes, notes in each, bytes to generate, their drawing.
    """

    name: ClassVar[str] = "uscd"
    attention: ClassVar[str] = "two rows at every step"

    deviation: float = 0.0485
    plausible: float = 1 / 3
    second_weight: float = -0.7
    variant: Literal["paper", "official"] = "paper"
    sequences: int = 64
    prompt: int = 194
    notes: int = 4
    new_tokens: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(sequences=self.sequences, notes=self.notes, new_tokens=self.new_tokens)
        self.need("notes", self.notes <= len(text.KEYS), f"1 to {len(text.KEYS)}")
        self.need("prompt", self.prompt > 2 + 3 * self.notes, f"over 2 + 3 x notes = {2 + 3 * self.notes}")
        self.need("prompt", fits(self.prompt, self.new_tokens), "what the model's positions hold")
        self.need("deviation", self.deviation >= 0, "a number of at least 0")
        self.need("variant", self.variant in ("paper", "official"), "paper, official")

    def questions(self) -> list[tuple[list[int], list[int], int]]:
        """Prompt, lame prompt and answer."""
        draw, content = random.Random(self.seed), text.reference(held_out=True)
        made = []
        for _ in range(self.sequences):
            asked = text.recall_question(draw, content, self.prompt, self.notes)
            bare = NOTES.sub(b"", asked.context)
            filler = text.window(draw, content, len(asked.context) - len(bare))
            made.append((list(asked.context), list(filler + bare), asked.answer))
        return made

    def run(self) -> Outcome:
        decoder = byte_decoder()
        rule = {"deviation": self.deviation, "plausible": self.plausible, "weights": (1.0, self.second_weight)}
        one = picks(decoder.shape, 1)
        passes: list[Pass] = []
        plain: list[Pass] = []
        right = before = contrasted = 0
        for number, (standard, lame, answer) in enumerate(self.questions()):
            tied = self.variant == "paper"
            tokens, used = decode(decoder, standard, lame, self.new_tokens, tied=tied, **rule)
            contrasted += used
            right += tokens[0] == answer
            before += decoder.greedy(standard, 1)[0] == answer
            plain += generation(decoder.shape, self.prompt, self.new_tokens, sequence=number, work=one)
            for row in range(2):
                passes += generation(decoder.shape, self.prompt, self.new_tokens, sequence=2 * number + row, work=one)
        steps = self.sequences * self.new_tokens
        facts = {
            "recall": right / self.sequences,
            "recall_plain": before / self.sequences,
            "contrasted_share": contrasted / steps,
        }
        effect = f"{contrasted / steps:.0%} of steps contrasted; recall {facts['recall']:.0%}, plain {facts['recall_plain']:.0%}"
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "greedy"), facts, effect)
