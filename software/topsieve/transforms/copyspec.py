"""`CopySpec`: what followed the last tokens earlier in the text is the draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from topsieve.transforms.decoder import ByteDecoder, byte_decoder, cut, fits, picks, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Pass, Workload, generation


@dataclass
class Matches:
    """Where each run of `window` tokens first stood in the text so far."""

    window: int
    text: list[int] = field(default_factory=list)
    first: dict[tuple[int, ...], int] = field(default_factory=dict)
    indexed: int = 0  # runs that end here or before are known

    def append(self, tokens: Sequence[int]) -> None:
        """Add `tokens`; runs that ended before them are known from now on (all runs of the first tokens that are given)."""
        known = len(self.text) or len(tokens)
        start = max(0, self.indexed - self.window + 1)
        self.text += tokens
        for place in range(start, known - self.window + 1):
            self.first.setdefault(tuple(self.text[place : place + self.window]), place)
        self.indexed = known

    def draft(self, length: int) -> list[int]:
        """At most `length` tokens that followed the last `window` tokens where they first stood; empty without a match."""
        place = self.first.get(tuple(self.text[-self.window :]))
        if place is None:
            return []
        return self.text[place + self.window : place + self.window + length]


def decode(
    decoder: ByteDecoder, prompt: Sequence[int], count: int, *, window: int, copied: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """`count` tokens behind `prompt`, equal to greedy decoding, and (tokens drafted, of them accepted) of each step."""
    matches, cache = Matches(window), decoder.fresh()
    matches.append(prompt)
    if len(prompt) > 1:
        decoder.forward(torch.tensor([prompt[:-1]]), cache)
    steps: list[tuple[int, int]] = []
    while len(matches.text) < len(prompt) + count:
        known = len(matches.text)
        drafted = matches.draft(copied)
        logits = decoder.forward(torch.tensor([[matches.text[-1], *drafted]]), cache)[0]
        picked = logits.argmax(-1).tolist()
        accepted = next((i for i, token in enumerate(drafted) if token != picked[i]), len(drafted))
        matches.append([*drafted[:accepted], picked[accepted]])
        cut(cache, known + accepted)
        steps.append((len(drafted), accepted))
    return matches.text[len(prompt) :][:count], steps


@dataclass(frozen=True)
class CopySpec(Transform):
    """CopySpec: where the last few tokens stood before, what followed them is verified in one pass.

    Dumitru et al., 2025; specification `methods-text`, section 12. A dictionary of all runs of `window` tokens gives the
    first place of the last run; the ten tokens behind that place are the draft. Without a match a step is a plain one.
    The text equals greedy decoding.

    Parameters
    ----------
    window : tokens that must match (the published function's default is 5, its authors recommend 3).
    copied : tokens of a draft.
    sequences, prompt, new_tokens, seed : windows of held-out text, their bytes, bytes to generate, and their drawing.
    """

    name: ClassVar[str] = "copyspec"
    attention: ClassVar[str] = "up to 11 queries where the text repeats itself"

    window: int = 5
    copied: int = 10
    sequences: int = 4
    prompt: int = 192
    new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(window=self.window, copied=self.copied, sequences=self.sequences)
        self.need_counts(prompt=self.prompt, new_tokens=self.new_tokens)
        self.need("new_tokens", fits(self.prompt, self.new_tokens + self.copied), "what the model's positions hold")

    def run(self) -> Outcome:
        decoder = byte_decoder()
        passes: list[Pass] = []
        plain: list[Pass] = []
        taken: list[tuple[int, int]] = []
        for sequence, prompt in enumerate(prompts(self.sequences, self.prompt, self.seed)):
            _, steps = decode(decoder, prompt, self.new_tokens, window=self.window, copied=self.copied)
            taken += steps
            passes += [*generation(decoder.shape, self.prompt, 0, sequence=sequence)]
            plain += generation(
                decoder.shape, self.prompt, self.new_tokens, sequence=sequence, work=picks(decoder.shape, 1)
            )
            known = self.prompt
            for number, (drafted, accepted) in enumerate(steps, 1):
                rows = 1 + drafted
                place = {"queries": rows, "keys": known + drafted, "sequence": sequence, "step": number}
                passes.append(Pass(shape=decoder.shape, **place, work=picks(decoder.shape, rows)))
                known += accepted + 1
        drafts = [step for step in taken if step[0]]
        drafted, accepted = sum(step[0] for step in drafts), sum(step[1] for step in drafts)
        per_step = 1 + accepted / len(taken)
        facts = {
            "tokens_per_step": per_step,
            "steps": len(taken),
            "steps_with_draft": len(drafts),
            "accepted_share": accepted / max(drafted, 1),
        }
        effect = f"{per_step:.2f} tokens a step; {facts['accepted_share']:.0%} of the copied tokens accepted"
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "greedy"), facts, effect)
