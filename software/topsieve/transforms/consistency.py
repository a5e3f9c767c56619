"""`Consistency`: does a token sequence survive being written as text and read again?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from topsieve.transforms.bpe import Bpe
from topsieve.transforms.byte_probabilities import Model, reference_model
from topsieve.transforms.decoder import byte_decoder, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Pass, Workload

Span = tuple[int, ...]


def phantom_edits(encoding: Bpe, tokens: Sequence[int]) -> list[tuple[Span, Span]]:
    """Where `tokens` and the tokens of their text differ: each shortest stretch of the one and of the other.

    Both spell the same text, so they are cut at the places that are ends of tokens in both.
    """
    again = encoding.encode(encoding.decode(tokens))
    edits = []
    start = (0, 0)
    ends = [list(accumulate(len(encoding.vocabulary[token]) for token in row)) for row in (tokens, again)]
    for common in sorted(set(ends[0]) & set(ends[1])):
        stop = (ends[0].index(common) + 1, ends[1].index(common) + 1)
        pair = tuple(tokens[start[0] : stop[0]]), tuple(again[start[1] : stop[1]])
        if pair[0] != pair[1]:
            edits.append(pair)
        start = stop
    return edits


def of_white_space(encoding: Bpe, edit: tuple[Span, Span]) -> bool:
    """Whether a token on either side of the edit begins, ends or consists of white space."""
    texts = [encoding.vocabulary[token] for side in edit for token in side]
    return any(text[:1].isspace() or text[-1:].isspace() for text in texts)


def sample(model: Model, encoding: Bpe, count: int, draw: np.random.Generator, *, masked: bool) -> list[int]:
    """`count` tokens drawn one by one; `masked` leaves only tokens that keep the sequence canonical."""
    tokens: list[int] = []
    while len(tokens) < count:
        shares = model(tokens)
        if masked:
            shares = np.where(encoding.followers(tokens[-1] if tokens else None), shares, 0.0)
        tokens.append(int(draw.choice(len(shares), p=shares / shares.sum())))
    return tokens


@dataclass(frozen=True)
class Consistency(Transform):
    """Tokenisation-consistency probe: tokens of a model, or of a prompt compressor, after writing and reading them.

    "Say Anything but This", 2026; specification `methods-text`, section 21. One text has many token sequences and only one
    that its tokenizer makes of it. Where a model's own tokens are not that one, reading the text again changes ids that
    nobody edited. Masking what cannot follow canonically removes it. A prompt that lost tokens must be counted after it
    was tokenised again: that count is the workload here, the count of the kept tokens is the plain one.

    The language model counts token pairs of the Python reference. The trace prices prompts as passes of byte-gpt's shape.

    Parameters
    ----------
    merges : of the encoding, behind 256 bytes.
    trials : sequences drawn, with the mask and without. tokens : of each.
    keep : share of a prompt's tokens that a compressor keeps, at random.
    sequences, length, seed : prompts, windows of held-out text, their bytes, and their drawing.
    """

    name: ClassVar[str] = "consistency"
    attention: ClassVar[str] = "prompts as long as their text, tokenised again"

    merges: int = 256
    trials: int = 64
    tokens: int = 16
    keep: float = 0.5
    sequences: int = 8
    length: int = 384
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(trials=self.trials, tokens=self.tokens, sequences=self.sequences, length=self.length)
        self.need_counts(low=0, merges=self.merges)
        self.need("keep", 0 < self.keep <= 1, "a number in (0, 1]")

    def run(self) -> Outcome:
        encoding, model = reference_model(self.merges)
        draw = np.random.default_rng(self.seed)
        drawn = {
            masked: [
                phantom_edits(encoding, sample(model, encoding, self.tokens, draw, masked=masked))
                for _ in range(self.trials)
            ]
            for masked in (False, True)
        }
        edits = [edit for found in drawn[False] for edit in found]
        spaces = sum(of_white_space(encoding, edit) for edit in edits) / max(len(edits), 1)
        kept, again = [], []
        for window in prompts(self.sequences, self.length, self.seed):
            ids = encoding.encode(bytes(window).decode("latin-1"))
            chosen = np.sort(draw.permutation(len(ids))[: max(1, int(len(ids) * self.keep))])
            kept.append(len(chosen))
            again.append(len(encoding.encode(encoding.decode(ids[index] for index in chosen))))
        shape = byte_decoder().shape
        changed, plain = (
            Workload(
                tuple(Pass(shape=shape, queries=n, keys=n, sequence=number) for number, n in enumerate(counts)), method
            )
            for counts, method in ((again, self.name), (kept, "kept tokens"))
        )
        facts = {
            "inconsistent_share": sum(map(bool, drawn[False])) / self.trials,
            "inconsistent_share_masked": sum(map(bool, drawn[True])) / self.trials,
            "white_space_share": spaces,
            "kept_tokens": sum(kept),
            "tokens_read_again": sum(again),
        }
        effect = (
            f"{facts['inconsistent_share']:.0%} of drawn sequences change ids when read again, masked "
            f"{facts['inconsistent_share_masked']:.0%}; {sum(kept)} kept tokens are {sum(again)} in their text"
        )
        return Outcome(changed, plain, facts, effect)
