"""`Rainbow`: padding of a diffusion language model's texts with a cycle of tokens instead of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from topsieve.corpus import MAXIMUM_WORDS, python_reference
from topsieve.transforms.decoder import byte_decoder
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, output_head
from topsieve_sim.trace.ops import TopK, TopKScope

MASK = -1
LONGEST = MAXIMUM_WORDS


def padded(tokens: Sequence[int], length: int, end: int, cycle: Sequence[int]) -> list[int]:
    """`tokens`, one `end`, then the `cycle` again and again up to `length`; an empty cycle pads with `end`."""
    row = [*tokens, end]
    pads = cycle or (end,)
    return row + [pads[place % len(pads)] for place in range(length - len(row))]


@dataclass(frozen=True)
class Denoiser:
    """A posterior over a set of texts: a text counts by how much of it agrees with what is revealed.

    Parameters
    ----------
    texts : int64 [T, N], padded. vocabulary : tokens.
    sharpness : a text weighs exp(sharpness x revealed places where it agrees).
    """

    texts: NDArray[np.int64]
    vocabulary: int
    sharpness: float

    def __call__(self, row: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [N, V]: distribution at each place of `row` int64 [N], in which `MASK` is not revealed yet."""
        agree = ((self.texts == row) & (row != MASK)).sum(1)
        weights = np.exp(self.sharpness * (agree - agree.max()))
        shares = np.zeros((len(row), self.vocabulary))
        np.add.at(shares, (np.arange(len(row)), self.texts), np.broadcast_to(weights[:, None], self.texts.shape))
        return shares / shares.sum(1, keepdims=True)


def unmask(denoiser: Denoiser, length: int, steps: int) -> NDArray[np.int64]:
    """int64 [N]: a text from nothing, the surest places first, ceil(N / steps) a step.

    Of equally sure places the first, of equally likely tokens the lowest.
    """
    row = np.full(length, MASK, np.int64)
    many = -(-length // steps)
    while (row == MASK).any():
        shares = denoiser(row)
        sure = np.where(row == MASK, shares.max(1), -1.0)
        chosen = np.argsort(-sure, kind="stable")[: min(many, int((row == MASK).sum()))]
        row[chosen] = shares[chosen].argmax(1)
    return row


def written(row: NDArray[np.int64], end: int) -> int:
    """Tokens in front of the first `end` or pad (a pad is a token above it); all where there is none."""
    ends = np.flatnonzero(row >= end)
    return int(ends[0]) if len(ends) else len(row)


@dataclass(frozen=True)
class Rainbow(Transform):
    """Rainbow Padding: texts of a diffusion model end with one end token and a cycle of seven pads.

    2025; specification `methods-text`, section 23. A model that unmasks its surest places first, trained on texts padded
    with repeated end tokens, is surest of the end tokens, unmasks them first, and the more room it has, the less it writes.
    With a cycle no pad is likely at a place as long as the length of the text is open. Attention is the same: every step
    runs all tokens on all keys, prompt and room alike, whatever stands there; that is the plain workload too.

    The denoiser is no network: it is the posterior of real sentences (words of the Python reference), in which a sentence
    weighs more the more revealed places agree with it. It reads the phase of the cycle off the first pad that is revealed,
    so it is no surer of pads at first, but writes no more in the end than with end padding. The trace prices its steps as passes of byte-gpt's shape.

    Parameters
    ----------
    pads : length of the cycle. room : tokens allotted. steps : of the denoising.
    sharpness : of the posterior.
    """

    name: ClassVar[str] = "rainbow"
    attention: ClassVar[str] = "unchanged: all tokens on all keys in every step"

    pads: int = 7
    room: int = 128
    steps: int = 32
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        self.need_counts(pads=self.pads, steps=self.steps)
        self.need("room", self.room > LONGEST, f"over {LONGEST}, the longest sentence")
        self.need("steps", self.steps <= self.room, f"1 to room = {self.room}")
        self.need("sharpness", self.sharpness > 0, "a number above 0")

    def run(self) -> Outcome:
        rows, words = sentences()
        lengths = {}
        sure = {}
        for name, cycle in (("end", ()), ("rainbow", tuple(range(words + 1, words + 1 + self.pads)))):
            texts = np.array([padded(row, self.room, words, cycle) for row in rows])
            denoiser = Denoiser(texts, words + 1 + len(cycle), self.sharpness)
            lengths[name] = written(unmask(denoiser, self.room, self.steps), words)
            sure[name] = float(denoiser(np.full(self.room, MASK))[:, words:].max())
        shape = byte_decoder().shape
        size = words + 1 + self.pads
        many = -(-self.room // self.steps)
        passes = tuple(
            Pass(
                shape=shape,
                queries=self.room,
                keys=self.room,
                step=step,
                causal=False,
                work=(
                    output_head(shape, self.room, size),
                    TopK(layer=OUTSIDE, n=self.room, k=many, scope=TopKScope.TOKEN),
                ),
            )
            for step in range(-(-self.room // many))
        )
        plain = tuple(replace(item, work=(output_head(shape, self.room, words + 1), *item.work[1:])) for item in passes)
        facts = {
            "words_written": lengths["rainbow"],
            "words_written_end_padding": lengths["end"],
            "mean_words_of_a_text": float(np.mean([len(row) for row in rows])),
            "surest_pad": sure["rainbow"],
            "surest_pad_end_padding": sure["end"],
        }
        effect = (
            f"surest end or pad before anything is revealed {sure['rainbow']:.0%}, with end padding {sure['end']:.0%}; "
            f"{lengths['rainbow']} words written, with end padding {lengths['end']}"
        )
        return Outcome(Workload(passes, self.name), Workload(plain, "end padding"), facts, effect)


def sentences() -> tuple[list[list[int]], int]:
    """Paragraphs of the Python reference as word numbers, and the number of words."""
    texts = [paragraph.split() for paragraph in python_reference().paragraphs]
    number = {word: index for index, word in enumerate(sorted({word for text in texts for word in text}))}
    return [[number[word] for word in text] for text in texts], len(number)
