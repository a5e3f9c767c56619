"""Decoding behind a prompt that was reduced in the model's layers: the cache holds what each layer saw of the prompt.

A vision method drops tokens before or inside the language model, so its layers fill the cache with different tokens. Each
layer's slots know their columns and the position that its next token takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from topsieve.cache.families import Decoder
from topsieve.cache.record import CacheRecord, LayerPass
from topsieve.cache.roles import CachePolicy, Taps
from topsieve.cache.run import CacheRun, Kernel
from topsieve.models.forward import ForwardPass
from topsieve.reduction.roles import AttentionPolicy
from topsieve_sim.errors import InputError


class Continuation:
    """The cache of one prompt, and the passes behind it.

    Parameters
    ----------
    decoder : the language model's parts.
    policy : of the passes behind the prompt.
    attention : of each layer.
    method : as text.
    columns : int64 [B, N], columns of the sequence at which the rows of the first layer's input stand; -1 for padding.
    live : bool [B, T], live columns of the prompt.
    images : bool [B, T], of these the image's.
    """

    def __init__(
        self,
        decoder: Decoder,
        policy: CachePolicy,
        attention: Sequence[AttentionPolicy],
        method: str,
        *,
        columns: Tensor,
        live: Tensor,
        images: Tensor,
        seed: int,
        keep_operands: bool,
    ) -> None:
        self._run = CacheRun(
            decoder,
            policy,
            method,
            seed=seed,
            keep_operands=keep_operands,
            attention=attention,
            prompt=live,
            segment=images,
        )
        self._decoder = decoder
        self._attention = attention
        self._prompt: list[LayerPass] = []
        self._columns = columns
        self._prompt_columns = live.shape[1]
        self._next: dict[int, Tensor] = {}
        self._new = 0
        self._cache: Cache | None = None

    def adopt(self, cache: Cache) -> None:
        """Give an empty cache the layers of this one."""
        cache.layers = list(self._run.layers)
        self._cache = cache

    def owns(self, cache: object) -> bool:
        """Whether `cache` is the one that the prompt filled."""
        return cache is self._cache and self._cache is not None and self._cache.layers == self._run.layers

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values that are held."""
        return sum(layer.nbytes for layer in self._run.layers)

    def fill(self, number: int, running: ForwardPass) -> None:
        """Layer `number` has put the prompt's keys and values into its slots: say which tokens they are."""
        place, valid = running.places, running.valid
        columns = self._columns.gather(1, place.clamp(min=0)).masked_fill(place < 0, -1)
        # A token that a method made has no column of its own: it stands behind the one before it.
        columns = columns.cummax(-1).values.clamp(min=0)
        self._run.layers[number].settle(columns, valid, running.size, self._prompt_columns)
        self._prompt.append(self._as_pass(number, running))
        if self._run.layers[number].reduced:
            ids = running.position_ids if running.position_ids is not None else valid.cumsum(-1) - 1
            self._next[number] = ids.masked_fill(~valid, -1).amax(-1, keepdim=True) + 1

    def filled(self) -> None:
        """The prompt is through."""
        self._run.prompt_read(self._prompt)

    def begin(self, mask: Tensor | None, tokens: Tensor) -> None:
        """A pass of new `tokens` [B, Q] begins; `mask` [B, T + new] as `generate` gives it.

        Raises
        ------
        InputError
            the mask does not fit.
        """
        total = self._run.seen + tokens.shape[1]
        if mask is None:
            mask = torch.ones((tokens.shape[0], total), dtype=torch.bool, device=tokens.device)
        if mask.shape != (tokens.shape[0], total):
            raise InputError(
                "wrong shape",
                field="attention_mask",
                value=tuple(mask.shape),
                allowed=f"{(tokens.shape[0], total)}",
            )
        self._new = self._run.seen - self._prompt_columns
        self._run.begin(mask.to(torch.bool), tokens.shape[1])

    def position_ids(self, number: int, queries: int) -> Tensor | None:
        """int64 [B, Q], what layer `number` rotates the new tokens by; None where the model's own are right."""
        following = self._next.get(number)
        if following is None:
            return None
        return following + self._new + torch.arange(queries, device=following.device)

    def attention(
        self, number: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel, *, scaling: float
    ) -> Tensor:
        """Attention of layer `number`, as of `CacheRun`."""
        return self._run.attention(number, query, key, value, kernel, scaling=scaling)

    def end(self) -> None:
        """The pass is through."""
        self._run.end()

    def record(self) -> CacheRecord:
        """The prompt as a pass of which the record of the prompt says more, and the passes behind it."""
        return self._run.record()

    def _as_pass(self, number: int, running: ForwardPass) -> LayerPass:
        shape = self._decoder.shape
        tokens, padded = running.valid.sum(-1), running.valid.shape[1]
        return LayerPass(
            layer=number,
            queries=tokens,
            padded_queries=padded,
            padded_slots=padded,
            slots=tokens.repeat_interleave(shape.kv_heads),
            heads=running.heads,
            read=tokens.unsqueeze(-1).expand(-1, shape.heads),
            taps=Taps(),
            policy=self._attention[number],
            decisions=(),
            cascade=(),
            channels=shape.head_dim,
            narrow_slots=0,
            held_bytes=self._run.layers[number].nbytes,
        )
