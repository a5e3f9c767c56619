"""`EqSpec`: speculative decoding of a batch whose rows accept different numbers of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from topsieve.subjects.byte_gpt.model import LAYERS
from topsieve.transforms.decoder import ByteDecoder, byte_decoder, fits, picks, prompts
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, generation
from topsieve_sim.trace.ops import Gather

CACHE_BITS = 16
STAGGER = 8  # bytes by which prompts differ in length
NOTHING = torch.zeros(0)


@dataclass
class Row:
    """One request: its text so far, how many tokens it still needs, its cache and the passes it took part in.

    keys, values : float [L, H, n, d] of the n tokens that the target model has read; empty before its first pass.
    """

    number: int
    text: list[int]
    missing: int
    keys: Tensor = NOTHING
    values: Tensor = NOTHING
    passes: list[Pass] = field(default_factory=list)
    step: int = 0

    @property
    def read(self) -> int:
        """Tokens in the cache."""
        return self.keys.shape[2] if self.keys.dim() > 1 else 0

    @property
    def group(self) -> tuple[int, bool]:
        """Rows of one group need no padding against each other."""
        return len(self.text), self.read > 0


def choose(pool: Sequence[Row], size: int) -> list[Row]:
    """The next batch of a pool: the first group of equal length that fills it, else the first `size` rows."""
    groups: dict[tuple[int, bool], list[Row]] = {}
    for row in pool:
        group = groups.setdefault(row.group, [])
        group.append(row)
        if len(group) == size:
            return group
    return list(pool[:size])


def accept(drafted: Sequence[int], picked: Sequence[int]) -> list[int]:
    """The draft up to the first mismatch with the target's picks, and the pick there; 1 to K of K tokens."""
    last = len(drafted) - 1
    first = next((i for i, token in enumerate(drafted) if token != picked[i]), last)
    return [*drafted[:first], picked[first]]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """int64 [B, N] padded on the left with token 0, and int64 [B], the padding of each row."""
    width = max(map(len, rows))
    padding = torch.tensor([width - len(row) for row in rows])
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    return ids, padding


def forward(decoder: ByteDecoder, cache: Any, ids: Tensor, padding: Tensor, old: int) -> Tensor:
    """Logits of `ids` int64 [B, Q] behind `old` slots of the cache, of which `padding` int64 [B] are empty on the left."""
    slots = torch.arange(old + ids.shape[1])
    rows = slots[old:]
    visible = (slots <= rows[:, None]) & (slots >= padding[:, None, None])
    # A row of padding alone sees itself, so that its softmax is defined; nobody reads it.
    visible = visible | (slots == rows[:, None])
    return decoder.forward(ids, cache, positions=(rows - padding[:, None]).clamp(min=0), visible=visible)


def propose(draft: ByteDecoder, rows: Sequence[Row], count: int) -> list[list[int]]:
    """`count` tokens of the draft model behind each row; it reads the whole batch anew."""
    cache = draft.fresh()
    ids, padding = padded([row.text for row in rows])
    out: list[list[int]] = [[] for _ in rows]
    old = 0
    width = ids.shape[1]
    for number in range(count):
        for row in rows:
            queries, keys = (width, width) if number == 0 else (1, width + number)
            row.passes.append(
                Pass(
                    shape=draft.shape,
                    queries=queries,
                    keys=keys,
                    sequence=row.number,
                    step=row.step,
                    work=picks(draft.shape, 1),
                )
            )
        best = forward(draft, cache, ids, padding, old)[:, -1].argmax(-1)
        old += ids.shape[1]
        ids = best[:, None]
        for tokens, token in zip(out, best.tolist(), strict=True):
            tokens.append(token)
    return out


def joined(decoder: ByteDecoder, rows: Sequence[Row]) -> tuple[Any, Tensor]:
    """One cache of the rows' own ones, padded on the left to the longest, and int64 [B], the padding."""
    cache = decoder.fresh()
    width = max(row.read for row in rows)
    padding = torch.tensor([width - row.read for row in rows])
    for layer in range(decoder.shape.layers if width else 0):
        keys, values = (
            torch.stack([torch.nn.functional.pad(kept[layer], (0, 0, width - kept.shape[2], 0)) for kept in kind])
            for kind in ([row.keys for row in rows], [row.values for row in rows])
        )
        cache.update(keys, values, layer)
    return cache, padding


def step(target: ByteDecoder, draft: ByteDecoder, rows: Sequence[Row], most: int, *, pooled: bool) -> bool:
    """One step of a batch; every row that is not done gains 1 to `most` tokens. Whether slots moved."""
    for row in rows:
        row.step += 1
    unread = [row for row in rows if row.read < len(row.text) - 1]
    for row in unread:
        _read_prompt(target, row)
    live = [row for row in rows if row.missing > 0]
    count = min([most, *(row.missing for row in live)])
    drafts = propose(draft, rows, count)
    cache, padding = joined(target, rows)
    old = max(row.read for row in rows)
    ids = torch.tensor([[row.text[-1], *drafted] for row, drafted in zip(rows, drafts, strict=True)])
    logits = forward(target, cache, ids, padding, old)
    accepted = [accept(*pair) for pair in zip(drafts, logits.argmax(-1).tolist(), strict=True)]
    # Slots move where rows did not grow alike; rows of a pool are stored apart and move where they meet unequal.
    moves = bool(padding.any()) if pooled else len({len(tokens) for tokens in accepted}) > 1
    for index, (row, tokens) in enumerate(zip(rows, accepted, strict=True)):
        kept = slice(int(padding[index]), old + len(tokens))
        row.keys, row.values = (
            torch.stack([getattr(layer, name)[index, :, kept] for layer in cache.layers]) for name in ("keys", "values")
        )
        work = picks(target.shape, count) + _moves(target, row.read if moves else 0)
        place = {"queries": count + 1, "keys": old + count + 1, "sequence": row.number, "step": row.step}
        row.passes.append(Pass(shape=target.shape, **place, work=work))
        if row.missing > 0:
            row.text += tokens
            row.missing -= len(tokens)
        else:
            row.keys, row.values = (kind[:, :, : len(row.text) - 1] for kind in (row.keys, row.values))
    return moves


def _moves(decoder: ByteDecoder, rows: int) -> tuple[Gather, ...]:
    if not rows:
        return ()
    width = 2 * decoder.shape.kv_heads * decoder.shape.head_dim
    return (Gather(layer=OUTSIDE, rows=rows * decoder.shape.layers, width=width, bits=CACHE_BITS),)


def _read_prompt(target: ByteDecoder, row: Row) -> None:
    """Everything but the last token goes into the cache."""
    cache = target.fresh()
    target.forward(torch.tensor([row.text[:-1]]), cache)
    row.keys, row.values = (torch.stack([getattr(x, name)[0] for x in cache.layers]) for name in ("keys", "values"))
    row.passes += generation(target.shape, len(row.text), 0, sequence=row.number)


def decode(
    target: ByteDecoder,
    draft: ByteDecoder,
    texts: Sequence[Sequence[int]],
    count: int,
    *,
    most: int,
    batch: int,
    window: int,
) -> tuple[list[Row], int, int]:
    """`count` tokens behind each text; the rows, the steps, and at how many of these slots moved.

    Parameters
    ----------
    most : tokens of a draft. batch : rows of a step.
    window : rows from which `choose` picks a batch (EXSPEC); 0 keeps the batches as they come, until all are done (EQSPEC).
    """
    rows = [Row(number, list(text), count) for number, text in enumerate(texts)]
    steps = moved = 0
    pool = list(rows)
    while pool:
        chosen = choose(pool[:window], batch) if window else pool[:batch]
        steps += 1
        moved += step(target, draft, chosen, most, pooled=bool(window))
        if window:
            pool = [row for row in pool if row.missing > 0]
        elif all(row.missing <= 0 for row in chosen):
            pool = pool[batch:]
    return rows, steps, moved


@dataclass(frozen=True)
class EqSpec(Transform):
    """EQSPEC and EXSPEC: speculative decoding of a batch, equal to decoding each request alone.

    Zhang et al., "Batch Speculative Decoding Done Right", 2025; specification `methods-text`, section 13. A small model
    drafts for all rows, the target verifies all rows in one pass, and rows that accepted different numbers of tokens are
    padded anew on the left, their cache moved with them. EXSPEC picks batches of equal length from a pool instead.

    The draft model is the first layers of byte-gpt with its own output map. It reads the whole padded batch anew in each
    step; a draft that is accepted whole gives no extra token; rows that are done stay until their batch is done.

    Parameters
    ----------
    most : tokens of a draft.
    batch : rows of a step. requests : all rows.
    window : rows that EXSPEC picks from (48 as published); 0 is EQSPEC.
    draft_layers : layers of the draft model.
    prompt : bytes of the shortest prompt, each next one is 8 longer. new_tokens, seed : bytes to generate; the drawing.
    """

    name: ClassVar[str] = "eqspec"
    attention: ClassVar[str] = "6 queries a row over padded keys; the draft model reads the batch anew each step"

    most: int = 5
    batch: int = 4
    requests: int = 8
    window: int = 0
    draft_layers: int = 3
    prompt: int = 128
    new_tokens: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(most=self.most, batch=self.batch, requests=self.requests, prompt=self.prompt)
        self.need_counts(new_tokens=self.new_tokens, draft_layers=self.draft_layers)
        self.need_counts(low=0, window=self.window)
        self.need("draft_layers", self.draft_layers <= LAYERS, f"1 to {LAYERS}")
        longest = self.prompt + STAGGER * (self.requests - 1)
        self.need("prompt", fits(longest, self.new_tokens + self.most), "what the model's positions hold")

    def texts(self) -> list[list[int]]:
        """The prompts, each longer than the one before."""
        return [prompts(1, self.prompt + STAGGER * number, self.seed + number)[0] for number in range(self.requests)]

    def run(self) -> Outcome:
        target = byte_decoder()
        rows, steps, moved = decode(
            target,
            target.shallow(self.draft_layers),
            self.texts(),
            self.new_tokens,
            most=self.most,
            batch=self.batch,
            window=self.window,
        )
        plain: list[Pass] = []
        for row in rows:
            length, one = len(row.text) - self.new_tokens, picks(target.shape, 1)
            plain += generation(target.shape, length, self.new_tokens, sequence=row.number, work=one)
        passes = [item for row in rows for item in row.passes]
        verified = [item for item in passes if item.shape == target.shape and item.step]
        per_step = self.requests * self.new_tokens / len(verified)
        facts = {"tokens_per_row_and_step": per_step, "steps": steps, "steps_that_move_the_cache": moved}
        effect = f"{per_step:.2f} tokens a row and step; {moved} of {steps} steps move the cache"
        return Outcome(Workload(tuple(passes), self.name), Workload(tuple(plain), "greedy"), facts, effect)
