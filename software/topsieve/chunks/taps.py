"""What the attention of one prompt is read for: sums over chunks of new chunks' rows, and of the question's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from topsieve.chunks.record import ChunkUse
from topsieve.chunks.roles import ChunkPolicy
from topsieve.chunks.scores import chunks_in_focus


class ChunkTaps:
    """Block sums of the probabilities, layer by layer.

    Parameters
    ----------
    chunks : of the prompt, in order. tokens : of the prompt; what stands behind the chunks is the question.
    """

    def __init__(self, chunks: Sequence[ChunkUse], tokens: int, policy: ChunkPolicy) -> None:
        self._chunks = chunks
        self._policy = policy
        ends = [chunk.start + chunk.tokens for chunk in chunks]
        self._question = torch.arange(ends[-1] if ends else 0, tokens)
        self._member = torch.zeros((tokens, len(chunks)))
        for index, (chunk, end) in enumerate(zip(chunks, ends, strict=True)):
            self._member[chunk.start : end, index] = 1
        self._rows: dict[int, list[Tensor]] = {i: [] for i, chunk in enumerate(chunks) if not chunk.reused}
        self._seen = torch.zeros(len(chunks))
        self._agreed = 0
        self._last: tuple[int, ...] | None = None

    def see(self, probability: Tensor, rows: Tensor) -> None:
        """Take in one layer: float [H, q, n] of the queries at positions `rows`."""
        mean = probability.mean(0)
        sums = mean @ self._member.to(mean)  # [q, m]
        for index, found in self._rows.items():
            chunk = self._chunks[index]
            inside = (rows >= chunk.start) & (rows < chunk.start + chunk.tokens)
            found.append(sums[inside])
        self._seen = self._seen + sums[torch.isin(rows, self._question)].mean(0).to(self._seen)

    def of_chunk(self, index: int) -> tuple[Tensor, Tensor]:
        """Of a new chunk: float [L, C, index], each token's attention to the chunks before, and float [L], within."""
        rows = torch.stack(self._rows[index])
        return rows[:, :, :index], rows[:, :, index].sum(1)

    def focus(self, layer: int) -> tuple[int, ...] | None:
        """The chunks that the question looks at, once enough layers up to this one agree; None before."""
        if not self._policy.focus or not self._chunks:
            return None
        here = chunks_in_focus(self._seen, self._policy.focus_mass)
        self._agreed = self._agreed + 1 if here == self._last else 1
        self._last = here
        return here if layer >= self._policy.focus_from and self._agreed >= self._policy.focus_layers else None
