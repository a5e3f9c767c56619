"""`ByteProbabilities`: exact probabilities of bytes from a language model of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from topsieve.subjects.byte_gpt import text as reference
from topsieve.transforms.bigram import Bigram, counted
from topsieve.transforms.bpe import BYTES, Bpe, trained
from topsieve.transforms.decoder import byte_decoder, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, generation, output_head
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Threshold

Model = Callable[[Sequence[int]], NDArray[np.float64]]

TRAINING_BYTES = 120_000


@dataclass
class Boundary:
    """A place in the text where a token of its canonical encoding can end.

    tokens : the encoding up to here. before : the boundary in front of the last token, None at the start.
    """

    place: int
    tokens: tuple[int, ...]
    before: Boundary | None


@dataclass
class Covers:
    """Probabilities of the text so far and of the byte behind it.

    A cover of a text is a canonical token sequence that spells at least the text and whose last token reaches its end.
    A text has one canonical encoding, so the covers are, for each place in the text, the encoding up to there and one
    more token that spells the rest and perhaps more. The model is conditioned on canonical sequences: tokens that cannot
    follow canonically get nothing, the others their shares; it must give every token some. It is asked about a boundary when the answer is first needed.

    Parameters
    ----------
    model : tokens to float64 [V], the distribution of the next one.
    encoding : the tokenizer.
    """

    model: Model
    encoding: Bpe
    text: str = ""
    forwards: list[int] = field(default_factory=list)  # tokens of each sequence that the model was asked about
    _open: list[Boundary] = field(default_factory=list)  # from here a token can spell the rest of the text and more
    _answers: dict[int, tuple[float, NDArray[np.float64]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open = [Boundary(0, (), None)]
        self._ending: Boundary | None = self._open[0]

    def next_bytes(self) -> NDArray[np.float64]:
        """float64 [256]: distribution of the byte behind the text; sums to one."""
        joint = np.zeros(256)
        answers = [(boundary, *self._answer(boundary)) for boundary in self._open]
        top = max(log for _, log, _ in answers)
        for boundary, log, follow in answers:
            length = len(self.text) - boundary.place
            for token in self._spelling(boundary):
                joint[ord(self.encoding.vocabulary[token][length])] += math.exp(log - top) * follow[token]
        joint /= joint.sum()
        return joint

    def log_probability(self) -> float:
        """Natural logarithm of the sum over the covers of the text."""
        if not self.text:
            return 0.0
        logs = [log + math.log(mass) for log, mass in self._masses() if mass > 0]
        return max(logs) + math.log(sum(math.exp(log - max(logs)) for log in logs))

    def append(self, byte: int) -> None:
        """The text goes on with `byte`.

        Raises
        ------
        InputError
            no canonical token sequence spells the text.
        """
        self.text += chr(byte)
        ids, ending = self.encoding.ids, []
        for boundary in self._open:
            token = ids.get(self.text[boundary.place :])
            if token is not None and self._allowed(boundary, token):
                ending.append(Boundary(len(self.text), (*boundary.tokens, token), boundary))
        (self._ending,) = ending or (None,)
        found = [boundary for boundary in (*self._open, *ending) if next(self._spelling(boundary), None) is not None]
        if not found:
            raise InputError("no token sequence spells this text", field="byte", value=byte)
        self._open = found

    def _masses(self) -> Iterator[tuple[float, float]]:
        """Log-probability of each boundary and the share of what covers the text from there."""
        for boundary in self._open:
            if boundary.place < len(self.text):
                log, follow = self._answer(boundary)
                yield log, sum(float(follow[token]) for token in self._spelling(boundary))
        if self._ending is not None:
            yield self._log(self._ending), 1.0

    def _spelling(self, boundary: Boundary) -> Iterator[int]:
        """Tokens that may follow the boundary and spell the rest of the text and more."""
        rest = self.text[boundary.place :]
        for token in self.encoding.starting(rest):
            if len(self.encoding.vocabulary[token]) > len(rest) and self._allowed(boundary, token):
                yield token

    def _allowed(self, boundary: Boundary, token: int) -> bool:
        return bool(self.encoding.followers(boundary.tokens[-1] if boundary.tokens else None)[token])

    def _answer(self, boundary: Boundary) -> tuple[float, NDArray[np.float64]]:
        """Log-probability of the boundary's tokens, and float64 [V], what follows them canonically."""
        if boundary.place not in self._answers:
            follow = self.model(boundary.tokens)
            self.forwards.append(len(boundary.tokens))
            last = boundary.tokens[-1] if boundary.tokens else None
            follow = np.where(self.encoding.followers(last), follow, 0.0)
            self._answers[boundary.place] = (self._log(boundary), follow / follow.sum())
        return self._answers[boundary.place]

    def _log(self, boundary: Boundary) -> float:
        if boundary.before is None:
            return 0.0
        log, follow = self._answer(boundary.before)
        share = float(follow[boundary.tokens[-1]])
        return log + math.log(share) if share else -math.inf


def canonical_bits(model: Model, encoding: Bpe, text: str) -> float:
    """Bits of the canonical encoding of `text` under the model as it is."""
    tokens = encoding.encode(text)
    return -sum(math.log2(model(tokens[:index])[token]) for index, token in enumerate(tokens))


def first_bytes(model: Model, encoding: Bpe, text: str) -> NDArray[np.float64]:
    """float64 [256]: first byte of the token that follows the encoding of `text`; wrong where `text` ends inside a token."""
    shares = model(encoding.encode(text))
    out = np.zeros(256)
    np.add.at(out, [ord(spelt[0]) for spelt in encoding.vocabulary], shares)
    return out


@cache
def reference_model(merges: int) -> tuple[Bpe, Bigram]:
    """An encoding of the Python reference and the pair model of its tokens."""
    content = reference.reference(held_out=False)[:TRAINING_BYTES].decode("latin-1")
    encoding = trained(content, merges, alphabet=BYTES)
    tokens = [token for line in content.splitlines(keepends=True) for token in encoding.encode(line)]
    return encoding, counted(tokens, len(encoding.vocabulary))


@dataclass(frozen=True)
class ByteProbabilities(Transform):
    """Exact byte-level probabilities: sums over all tokens that may reach past the text, instead of one encoding of it.

    Phan et al., ICLR 2025; specification `methods-text`, section 20. A model of tokens says nothing about the next byte
    where a text ends inside a token. The probability of a text is the sum over its covers: canonical token sequences
    whose last token reaches its end; of a byte, the ratio of two such sums. Each boundary between tokens that some cover
    has is one pass of one query behind a shared prefix.

    The language model counts token pairs of the Python reference; the trace prices its questions as passes of byte-gpt's
    shape over the same tokens.

    Parameters
    ----------
    merges : of the encoding, behind 256 bytes.
    sequences, length, seed : windows of held-out text, their bytes, and their drawing.
    """

    name: ClassVar[str] = "byte-probabilities"
    attention: ClassVar[str] = "one query at each boundary of a cover, not of one encoding"

    merges: int = 256
    sequences: int = 4
    length: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(sequences=self.sequences, length=self.length)
        self.need_counts(low=0, merges=self.merges)

    def run(self) -> Outcome:
        shape = byte_decoder().shape
        encoding, model = reference_model(self.merges)
        size = len(encoding.vocabulary)
        passes: list[Pass] = []
        plain: list[Pass] = []
        bits = {"exact": 0.0, "canonical": 0.0, "cut": 0.0}
        bytes_read = 0
        for sequence, window in enumerate(prompts(self.sequences, self.length, self.seed)):
            text = bytes(window).decode("latin-1")
            covers = Covers(model, encoding)
            for place, byte in enumerate(window):
                bits["exact"] -= math.log2(covers.next_bytes()[byte])
                bits["cut"] -= math.log2(first_bytes(model, encoding, text[:place])[byte])
                covers.append(byte)
            bits["canonical"] += canonical_bits(model, encoding, text)
            bytes_read += len(window)
            one = (output_head(shape, 1, size),)
            tokens = len(encoding.encode(text))
            plain += generation(shape, 1, tokens, sequence=sequence, work=one)
            passes += [
                Pass(
                    shape=shape,
                    queries=1,
                    keys=1 + asked,
                    sequence=sequence,
                    step=step,
                    # Which tokens start with the pending bytes: a mask over the vocabulary.
                    work=(*one, Threshold(layer=OUTSIDE, n=size, kept=size)),
                )
                for step, asked in enumerate(covers.forwards, 1)
            ]
        per_byte = {f"{name}_bits_per_byte": total / bytes_read for name, total in bits.items()}
        facts = {**per_byte, "passes_per_byte": len(passes) / bytes_read, "tokens_per_byte": len(plain) / bytes_read}
        effect = (
            f"{per_byte['exact_bits_per_byte']:.2f} bits a byte; from the cut text's own encoding "
            f"{per_byte['cut_bits_per_byte']:.2f}"
        )
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "one encoding"), facts, effect)
