"""`SimpleTool`: the arguments of a function call, decoded side by side behind one prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from topsieve.subjects.byte_gpt import text
from topsieve.transforms.decoder import ByteDecoder, byte_decoder, fits, picks
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Pass, Workload

Head = tuple[int, ...]


def decode(
    decoder: ByteDecoder, prompt: Sequence[int], heads: Sequence[Head], most: int, stop: int | None
) -> tuple[list[list[int]], int]:
    """What each head writes behind `prompt` and its opening tokens, and the passes after the prompt's.

    Heads run as rows of one batch and do not see each other. All openings have one length. A head ends with its `stop`
    token, which is not part of what it wrote, or after `most` tokens.
    """
    cache = decoder.fresh()
    decoder.forward(torch.tensor([prompt]), cache)
    for layer in cache.layers:
        layer.keys, layer.values = (kind.expand(len(heads), -1, -1, -1) for kind in (layer.keys, layer.values))
    ids = torch.tensor(heads)
    out: list[list[int]] = [[] for _ in heads]
    running = set(range(len(heads)))
    steps = 0
    while running:
        steps += 1
        best = decoder.forward(ids, cache)[:, -1].argmax(-1)
        for head in sorted(running):
            token = int(best[head])
            if token != stop:
                out[head].append(token)
            if token == stop or len(out[head]) == most:
                running.remove(head)
        ids = best[:, None]
    return out, steps


@dataclass(frozen=True)
class Call:
    """A prompt with notes, the openings of the heads and what each should write."""

    prompt: list[int]
    heads: tuple[Head, ...]
    answers: tuple[int, ...]


def calls(count: int, length: int, heads: int, seed: int) -> list[Call]:
    """Prompts of reference text that hold `heads` notes `@Kv`; head K opens with `?K` and should write v."""
    draw, content = random.Random(seed), text.reference(held_out=True)
    made = []
    for _ in range(count):
        keys = draw.sample(text.KEYS, heads)
        values = [draw.choice(text.VALUES) for _ in keys]
        body = text.window(draw, content, length - 3 * heads)
        notes = [text.NOTE + bytes(pair) for pair in zip(keys, values, strict=True)]
        prompt = list(text.with_notes(draw, body, notes))
        made.append(Call(prompt, tuple((text.QUESTION[0], key) for key in keys), tuple(values)))
    return made


@dataclass(frozen=True)
class SimpleTool(Transform):
    """SimpleTool: heads for the parts of a function call decode in parallel behind one shared prompt.

    HaxxorCialtion, 2025; specification `methods-text`, section 15. Function name and arguments are sequences of their own:
    the prompt and an opening token each. They run as rows of a batch, do not see each other, and end on their own; steps
    are those of the longest, not the sum. The prompt's keys and values are read once for all rows.

    byte-gpt was not trained for calls, but it recalls notes: an argument is what the note of the head's key says, its
    opening is a question of two bytes.

    Parameters
    ----------
    heads : rows behind a prompt, at most 8 (content, function and six arguments).
    most : tokens a head may write (published: 32).
    shared : whether a machine reads the prompt once for all rows; else once a row.
    sequences, prompt, seed : prompts, their bytes, and their drawing.
    """

    name: ClassVar[str] = "simpletool"
    attention: ClassVar[str] = "a query a head and step on shared prompt keys"

    heads: int = 6
    most: int = 8
    shared: bool = True
    sequences: int = 8
    prompt: int = 192
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(heads=self.heads, most=self.most, sequences=self.sequences)
        self.need("heads", self.heads <= 8, "1 to 8")
        self.need("prompt", self.prompt > 3 * self.heads, f"over 3 x heads = {3 * self.heads}")
        self.need("prompt", fits(self.prompt, self.heads * (2 + self.most)), "what the model's positions hold")

    def run(self) -> Outcome:
        decoder = byte_decoder()
        passes: list[Pass] = []
        plain: list[Pass] = []
        right = behind = parallel = serial = 0
        for sequence, call in enumerate(calls(self.sequences, self.prompt, self.heads, self.seed)):
            written, steps = decode(decoder, call.prompt, call.heads, self.most, None)
            right += sum(tokens[0] == answer for tokens, answer in zip(written, call.answers, strict=True))
            # One after the other in one text: each argument sees those before it.
            grown = list(call.prompt)
            for head, answer in zip(call.heads, call.answers, strict=True):
                grown += head
                tokens = decoder.greedy(grown, self.most)
                behind += tokens[0] == answer
                grown += tokens
            passes += self._parallel(decoder, steps, sequence)
            plain += self._serial(decoder, sequence)
            parallel, serial = parallel + steps, serial + self.heads * self.most
        count = self.sequences * self.heads
        facts = {
            "steps_ratio": parallel / serial,
            "right_arguments": right / count,
            "right_arguments_one_by_one": behind / count,
        }
        effect = (
            f"{parallel} steps, not {serial}; {right / count:.0%} of arguments right, one by one {behind / count:.0%}"
        )
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "one by one"), facts, effect)

    def _parallel(self, decoder: ByteDecoder, steps: int, sequence: int) -> list[Pass]:
        """With a shared prompt the rows are a tree: a branch a head. It stands step by step behind the prompt."""
        shape, rows = decoder.shape, self.heads
        passes = [Pass(shape=shape, queries=self.prompt, keys=self.prompt, sequence=sequence)]
        for step in range(1, steps + 1):
            fed, grown = (2, 2) if step == 1 else (1, 1 + step)
            at = {"sequence": sequence, "step": step}
            if self.shared:
                keys = self.prompt + rows * grown
                passes.append(Pass(shape=shape, queries=rows * fed, keys=keys, work=picks(shape, rows), **at))
            else:
                one = Pass(shape=shape, queries=fed, keys=self.prompt + grown, work=picks(shape, 1), **at)
                passes += [one] * rows
        return passes

    def _serial(self, decoder: ByteDecoder, sequence: int) -> list[Pass]:
        """The prompt, then each opening and its tokens; what an argument wrote last is read with the next opening."""
        shape, known, step = decoder.shape, self.prompt, 0
        passes = [Pass(shape=shape, queries=known, keys=known, sequence=sequence)]
        for head in range(self.heads):
            for token in range(self.most):
                step += 1
                fed = (2 + (head > 0)) if token == 0 else 1
                known += fed
                at = {"sequence": sequence, "step": step}
                passes.append(Pass(shape=shape, queries=fed, keys=known, work=picks(shape, 1), **at))
        return passes
