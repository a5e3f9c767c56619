"""`Simultaneous`: read a few words, write what the beams agree on, and keep the cache over the interleaved text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from topsieve.subjects.byte_gpt.model import POSITIONS
from topsieve.transforms.decoder import ByteDecoder, byte_decoder, cut, fits, picks, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload
from topsieve_sim.trace.ops import Gather

CACHE_BITS = 16
MARK = 10  # a new line, between what was read and what was written
BLANK = 32
INSTRUCTION = "Translate with {} latency.\n"


def agreed(beams: Sequence[Sequence[str]], share: float, *, dropping: bool) -> tuple[list[str], int]:
    """Words that enough beams agree on, place by place, and a beam that has them all (RALCP).

    At each place all beams count, or, `dropping`, those that agreed so far. A word stays if at least
    int(`share` x beams) hold it there, the earliest beam's word of those; else the walk ends.
    """
    alive = list(range(len(beams)))
    holders, words = alive, []
    while True:
        place = len(words)
        held = Counter(beams[index][place] for index in alive if len(beams[index]) > place)
        bar = max(1, int(len(alive) * share))
        word = next((beams[index][place] for index in alive if _holds(beams[index], place, held, bar)), None)
        if word is None:
            return words, holders[0]
        following = [index for index in holders if len(beams[index]) > place and beams[index][place] == word]
        if not following:
            # Beams that agree here do not agree with any beam on the words before.
            return words, holders[0]
        words.append(word)
        holders = following
        if dropping:
            alive = following


def _holds(beam: Sequence[str], place: int, held: Counter[str], bar: int) -> bool:
    return len(beam) > place and held[beam[place]] >= bar


def beam_search(decoder: ByteDecoder, cache: Any, ids: Sequence[int], width: int, count: int) -> tuple[Tensor, Tensor]:
    """int64 [width, count]: the likeliest continuations of `ids` behind `cache`, best first; float64 [width], how likely.

    Likelihoods are natural logarithms. The cache becomes the continuations' rows, without the last token of each. Ties go to the earlier beam, then to the lower token.
    """
    logits = decoder.forward(torch.tensor([list(ids)]), cache)[0, -1]
    scores = logits.double().log_softmax(-1)
    order = scores.sort(stable=True, descending=True)
    totals, text = order.values[:width], order.indices[:width, None]
    for layer in cache.layers:
        layer.keys, layer.values = (kind.expand(width, -1, -1, -1) for kind in (layer.keys, layer.values))
    for _ in range(count - 1):
        steps = decoder.forward(text[:, -1:], cache)[:, -1].double().log_softmax(-1)
        order = (totals[:, None] + steps).flatten().sort(stable=True, descending=True)
        totals, best = order.values[:width], order.indices[:width]
        beams = best // steps.shape[1]
        text = torch.cat((text[beams], best[:, None] % steps.shape[1]), 1)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[beams], layer.values[beams]
    return text, totals


def beam_search_until(
    decoder: ByteDecoder, cache: Any, ids: Sequence[int], width: int, stop: int, most: int
) -> tuple[list[int], float, int]:
    """The likeliest continuation of `ids` up to the token `stop`, its mean log-likelihood a token, and the beams' steps.

    The search ends when `width` beams have ended, or at `most` tokens, where open beams count too. The text is without
    `stop`, which counts in the mean. Ties go to the earlier beam, then to the lower token. The cache is left with the
    beams' rows; cut back to what it held it serves on.
    """
    scores = decoder.forward(torch.tensor([list(ids)]), cache)[:, -1].double().log_softmax(-1)
    totals, texts = torch.zeros(1, dtype=torch.float64), [[]]  # type: list[list[int]]
    ended: list[tuple[float, list[int]]] = []
    steps = 0
    while True:
        order = (totals[:, None] + scores).flatten().sort(stable=True, descending=True)
        beams, grown, kept = [], [], []
        for total, flat in zip(order.values[: 2 * width].tolist(), order.indices[: 2 * width].tolist(), strict=True):
            beam, token = divmod(flat, scores.shape[1])
            length = len(texts[beam]) + 1
            if token == stop:
                ended.append((total / length, texts[beam]))
            elif len(beams) < width:
                beams.append(beam)
                grown.append([*texts[beam], token])
                kept.append(total)
        texts, totals = grown, torch.tensor(kept, dtype=torch.float64)
        if len(ended) >= width or len(texts[0]) == most:
            break
        rows = torch.tensor(beams)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        last = torch.tensor([text[-1:] for text in texts])
        scores = decoder.forward(last, cache)[:, -1].double().log_softmax(-1)
        steps += 1
    if len(texts[0]) == most:
        ended += [(total / most, text) for total, text in zip(totals.tolist(), texts, strict=True)]
    likelihood, text = max(ended, key=lambda end: end[0])
    return text, likelihood, steps


def chunks(source: Sequence[int], words: int) -> list[list[int]]:
    """`source` in pieces of `words` words, blanks at their ends; what ends inside a word is left out."""
    found: list[list[int]] = [[]]
    blanks = 0
    for byte in source:
        found[-1].append(byte)
        if byte == BLANK:
            blanks += 1
            if blanks % words == 0:
                found.append([])
    return found[:-1]


@dataclass(frozen=True)
class Read:
    """One read: tokens in the prompt and how many of them ran, the text that was written, log-likelihood of the best beam.

    `steps` is how often the beams ran behind it; 0 where the model decided to read on.
    """

    prompt: int
    ran: int
    written: list[int]
    likelihood: float
    steps: int


def interleaved(decoder: ByteDecoder, source: Sequence[Sequence[int]], config: Simultaneous) -> list[Read]:
    """Read and write in turn in one text. With `config.reuse` the cache keeps all that is settled, else it starts anew."""
    cache, text, reads = decoder.fresh(), [], []
    known = 0
    for chunk in source:
        text += [*chunk, MARK]
        if not config.reuse:
            cache, known = decoder.fresh(), 0
        prompt = len(text)
        beams, likely = beam_search(decoder, cache, text[known:], config.beams, config.most)
        words, holder = agreed([_words(beam) for beam in beams.tolist()], config.share, dropping=True)
        written = list("".join(words).encode("latin-1"))
        for layer in cache.layers:
            layer.keys, layer.values = (kind[holder : holder + 1] for kind in (layer.keys, layer.values))
        reads.append(Read(prompt, prompt - known, written, float(likely[0]), config.most - 1))
        # The last token of a beam never ran, so it is not in the cache.
        known = min(prompt + len(written), prompt + config.most - 1)
        cut(cache, known)
        text += [*written, MARK]
    return reads


def deciding(decoder: ByteDecoder, source: Sequence[Sequence[int]], config: Simultaneous) -> list[Read]:
    """Read and write as the model says (EAST): behind each read its best token decides, MARK to write.

    A write is a read of that mark, from which beams go on to the next one; what they wrote is kept as text, read with the
    next chunk, and their cache is given up. Behind the last chunk the model must write. With `config.reuse` the cache keeps
    the text, else every pass starts anew.
    """
    cache, text, reads = decoder.fresh(), list(INSTRUCTION.format(config.latency).encode()), []
    known = waiting = 0
    for number, chunk in enumerate(source):
        # The blank behind a word stands before the next one, so that a mark may follow the word.
        text += [BLANK] * bool(waiting) + list(chunk[:-1])
        if not config.reuse:
            cache, known = decoder.fresh(), 0
        best = int(decoder.forward(torch.tensor([text[known:]]), cache)[0, -1].argmax())
        reads.append(Read(len(text), len(text) - known, [], 0.0, 0))
        known, waiting = len(text), waiting + config.words
        last = number == len(source) - 1
        if best != MARK and not last:
            continue
        text.append(MARK)
        ahead = sum(len(later) for later in source[number + 1 :])
        most = min(2 * (waiting + config.slack), POSITIONS - len(text) - ahead - 2)
        if not config.reuse:
            cache, known = decoder.fresh(), 0
        written, likelihood, steps = beam_search_until(decoder, cache, text[known:], config.beams, MARK, max(most, 1))
        reads.append(Read(len(text), len(text) - known, written, likelihood, steps))
        known, waiting = len(text), 0
        for layer in cache.layers:
            layer.keys, layer.values = (kind[:1, :, :known] for kind in (layer.keys, layer.values))
        text += [*written, MARK]
    return reads


def _words(beam: Sequence[int]) -> list[str]:
    """Whole words of a beam, each with the blank behind it."""
    parts = bytes(beam).decode("latin-1").split(" ")
    return [part + " " for part in parts[:-1]]


@dataclass(frozen=True)
class Simultaneous(Transform):
    """Simultaneous translation: source words arrive, beams agree on words to write, reading goes on.

    EAST and LLM-SimulMT, 2024 and 2025; specification `methods-text`, section 17. Source chunks and what was written for
    them stand interleaved in one text, so the cache of all that is settled stays: a read runs its new tokens only, then
    beams decode side by side, and the cache is cut to what they agree on (relaxed agreement on the longest common prefix).
    Without reuse, the plain workload, every read encodes the whole text again.

    With `policy=east` the model itself decides behind each read, by its best token, whether to write; a write runs until
    the mark that ends it, at most 2 x (words read since the last one + `slack`) tokens or what the model's positions leave,
    the likeliest beam by its mean. What was written is read again with the next chunk, for the beams' cache is given up.

    byte-gpt does not translate: it goes on with the text, so the work is real and the words are no translation. A line end
    stands in for EAST's two marks.

    Parameters
    ----------
    words : of a read (published: 3). beams : (5). share : of the beams that must agree (0.6).
    most : tokens of a beam, by agreement. reuse : keep the cache between reads.
    policy : "agreement", or "east". slack : see above (25). latency : word of EAST's instruction: low, medium or high.
    sequences, source, seed : windows of held-out text, their bytes, and their drawing. reads : at most, of each.
    """

    name: ClassVar[str] = "simultaneous"
    attention: ClassVar[str] = "short chunks on a growing cache, bursts of 5 beams between them"

    words: int = 3
    beams: int = 5
    share: float = 0.6
    most: int = 16
    reuse: bool = True
    policy: Literal["agreement", "east"] = "agreement"
    slack: int = 25
    latency: Literal["low", "medium", "high"] = "low"
    sequences: int = 2
    source: int = 256
    reads: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(words=self.words, beams=self.beams, sequences=self.sequences)
        self.need_counts(source=self.source, reads=self.reads)
        self.need_counts(low=2, most=self.most)
        self.need("share", 0 < self.share <= 1, "a number in (0, 1]")
        self.need("policy", self.policy in ("agreement", "east"), "agreement, east")
        self.need("latency", self.latency in ("low", "medium", "high"), "low, medium, high")
        self.need_counts(low=0, slack=self.slack)
        self.need("source", fits(self.source, self.reads * (self.most + 2)), "what the model's positions hold")

    def run(self) -> Outcome:
        decoder = byte_decoder()
        passes: list[Pass] = []
        plain: list[Pass] = []
        ran = whole = written = count = writes = 0
        walk = interleaved if self.policy == "agreement" else deciding
        for sequence, window in enumerate(prompts(self.sequences, self.source, self.seed)):
            reads = walk(decoder, chunks(window, self.words)[: self.reads], self)
            step = 0
            for read in reads:
                passes += self._passes(decoder, read, read.ran, sequence, step)
                plain += self._passes(decoder, read, read.prompt, sequence, step)
                ran, whole, written = ran + read.ran, whole + read.prompt, written + len(read.written)
                step += read.steps + 1
                writes += read.steps > 0
            count += len(reads)
        facts = {
            "reads": count,
            "prompt_tokens_run": ran,
            "prompt_tokens_run_anew": whole,
            "written_bytes_per_read": written / max(count, 1),
        }
        said = f"beams agree on {written / max(count, 1):.1f} bytes a read"
        if self.policy == "east":
            facts |= {"writes": writes, "written_bytes_per_write": written / max(writes, 1)}
            said = f"{writes} of them write, {written / max(writes, 1):.1f} bytes each"
        effect = f"{ran} prompt tokens run in {count} reads, not {whole}; {said}"
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "encoded anew"), facts, effect)

    def _passes(self, decoder: ByteDecoder, read: Read, queries: int, sequence: int, step: int) -> list[Pass]:
        """The read, then the beams' steps; a beam is a pass of its own, and their caches change places."""
        shape = decoder.shape
        at = {"shape": shape, "sequence": sequence}
        made = [Pass(queries=queries, keys=read.prompt, step=step, work=picks(shape, 1), **at)]
        for place in range(1, read.steps + 1):
            moved = Gather(layer=OUTSIDE, rows=place * shape.layers, width=2 * shape.width, bits=CACHE_BITS)
            work = (*picks(shape, 1), moved)
            made += [Pass(queries=1, keys=read.prompt + place, step=step + place, work=work, **at)] * self.beams
        return made
