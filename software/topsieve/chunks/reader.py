"""Read prompts made of chunks with a Hugging Face decoder, with the keys and values of chunks that were read before."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from topsieve.cache.families import Decoder, decoder_of
from topsieve.chunks.record import ChunkLayer, ChunkRecord, ChunkUse
from topsieve.chunks.roles import ChunkMethod, ChunkPolicy
from topsieve.chunks.scores import recompute_count, recomputed
from topsieve.chunks.store import ChunkStore, Variant, chunk_name, made_variant
from topsieve.chunks.taps import ChunkTaps
from topsieve.methods import spell
from topsieve.models.families import check_attention
from topsieve.models.hosting import registered, unused_name
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class Read:
    """A prompt that was read.

    Parameters
    ----------
    logits : float [q, V], behind each token of the question.
    cache : keys and values of the whole prompt, to go on decoding with: `model(input_ids=..., past_key_values=cache)`.
    record : what happened.
    """

    logits: Tensor
    cache: DynamicCache
    record: ChunkRecord


class PromptLayer(DynamicLayer):
    """Keys and values of the whole prompt, float [1, KV, n, d]; an update writes the rows that run."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.rows = torch.empty(0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys = self.keys.index_copy(2, self.rows, key_states)
        self.values = self.values.index_copy(2, self.rows, value_states)
        return self.keys, self.values


class ChunkReader:
    """A decoder and its store of chunks. The model is left as it was after every prompt.

    Parameters
    ----------
    model : a decoder of the families that `topsieve.reduce` knows. Where positions are learned, reused keys keep the
        position they were computed at; rotary ones are turned.
    method : such as `topsieve.methods.build("cache-craft")`.
    """

    def __init__(self, model: Any, method: ChunkMethod) -> None:
        self._model = model
        self._decoder: Decoder = decoder_of(model)
        self._method = method
        self._policy: ChunkPolicy = method.chunks(self._decoder.shape)
        self.store = ChunkStore(self._policy)

    @torch.no_grad()
    def read(self, chunks: Sequence[Tensor], question: Tensor, *, reuse: bool = True) -> Read:
        """Read `chunks` and then `question`, all int64 [n]; new chunks are stored.

        Parameters
        ----------
        reuse : take from the store; else everything is computed, and stored as it is behind these chunks.

        Raises
        ------
        InputError
            the question or a chunk is empty.
        """
        if not all(part.dim() == 1 and len(part) for part in (*chunks, question)):
            raise InputError("needs at least one token", field="chunks, question", allowed="int64 [n], n > 0")
        tokens = torch.cat([*chunks, question])
        uses, variants = self._plan(chunks, reuse)
        starts = sum(map(len, chunks))
        taken = [use.start + use.recomputed for use in uses]
        rows = torch.cat([*taken, torch.arange(starts, len(tokens))])
        reading = _Reading(
            self._decoder, self._policy, uses, len(tokens), rows, self._layers(uses, variants, len(tokens))
        )
        with ExitStack() as undo:
            reading.install(undo)
            logits = self._model(
                input_ids=tokens[rows][None],
                position_ids=rows[None],
                past_key_values=reading.cache,
                use_cache=True,
            ).logits[0, -len(question) :]
        for index, use in enumerate(uses):
            if not use.reused:
                self._keep(index, uses, reading)
        full = DynamicCache(config=self._decoder.base.config)
        for number, layer in enumerate(reading.layers):
            full.update(layer.keys, layer.values, number)
        record = ChunkRecord(
            self._decoder.shape,
            spell(self._method),  # type: ignore[arg-type]
            self._policy,
            len(tokens),
            len(question),
            self._decoder.rotary is not None,
            tuple(uses),
            tuple(reading.done),
        )
        return Read(logits, full, record)

    def _plan(self, chunks: Sequence[Tensor], reuse: bool) -> tuple[list[ChunkUse], list[Variant | None]]:
        """For each chunk the stored variant that needs least repair, and which of its tokens are computed again."""
        uses: list[ChunkUse] = []
        variants: list[Variant | None] = []
        start = 0
        for chunk in chunks:
            name, length = chunk_name(chunk), len(chunk)
            found = self.store.best(name, [use.name for use in uses]) if reuse else None
            if found is None:
                uses.append(ChunkUse(name, start, length, False, False, 1.0, torch.arange(length), None))
                variants.append(None)
            else:
                variant, share = found
                given = self._policy.share
                count = recompute_count(share if given is None else given, length, given=given is not None)
                share = share if given is None else given
                variant.uses += 1
                variant.share = share
                which = recomputed(variant.token_scores, count)
                moved = variant.start != start and self._decoder.rotary is not None
                uses.append(ChunkUse(name, start, length, True, moved, share, which, variant.token_scores))
                variants.append(variant)
            start += length
        return uses, variants

    def _layers(self, uses: list[ChunkUse], variants: list[Variant | None], tokens: int) -> list[PromptLayer]:
        """The prompt's keys and values with those of reused chunks in their places; zeros where they will be computed."""
        shape, rotary = self._decoder.shape, self._decoder.rotary
        weight = next(self._decoder.base.parameters())
        empty = weight.new_zeros((shape.layers, 1, shape.kv_heads, tokens, shape.head_dim))
        keys, values = empty, empty.clone()
        for use, variant in zip(uses, variants, strict=True):
            if variant is None:
                continue
            place = slice(use.start, use.start + use.tokens)
            moved = variant.keys
            if use.moved:
                assert rotary is not None
                moved = rotary.turned(moved, torch.full(moved.shape[:-1], use.start - variant.start))
            keys[:, 0, :, place], values[:, 0, :, place] = moved, variant.values
        return [PromptLayer(keys[layer], values[layer]) for layer in range(shape.layers)]

    def _keep(self, index: int, uses: list[ChunkUse], reading: _Reading) -> None:
        """Store chunk `index`, which was computed whole."""
        use = uses[index]
        place = slice(use.start, use.start + use.tokens)
        keys, values = (
            torch.stack([getattr(layer, name)[0, :, place] for layer in reading.layers]) for name in ("keys", "values")
        )
        before = [(earlier.name, earlier.tokens) for earlier in uses[:index]]
        taps, inside = reading.taps.of_chunk(index)
        self.store.add(use.name, made_variant(before, use.start, keys, values, taps, inside))


class _Reading:
    """One prompt on its way through the layers."""

    def __init__(
        self,
        decoder: Decoder,
        policy: ChunkPolicy,
        uses: list[ChunkUse],
        tokens: int,
        rows: Tensor,
        layers: list[PromptLayer],
    ) -> None:
        self._decoder = decoder
        self._uses = uses
        self._rows = rows  # positions of the queries that entered the first layer
        self._live = torch.ones(len(rows), dtype=torch.bool)
        self.layers = layers
        self.taps = ChunkTaps(uses, tokens, policy)
        self.done: list[ChunkLayer] = []
        self.cache = DynamicCache()
        self.cache.layers = list(layers)

    def install(self, undo: ExitStack) -> None:
        """Put the hooks in; `undo` takes them out."""
        base: Any = self._decoder.base
        previous = base.config._attn_implementation
        check_attention(previous)
        name = unused_name()
        registered(undo, AttentionInterface, name, self._attention)
        undo.callback(setattr, base.config, "_attn_implementation_internal", previous)
        base.set_attn_implementation(name)
        for index, block in enumerate(self._decoder.blocks):
            vars(block)["forward"] = functools.partial(self._layer, index, block.forward)
            undo.callback(vars(block).pop, "forward")

    def _layer(self, index: int, forward: Callable[..., Tensor], hidden: Tensor, *args: Any, **given: Any) -> Tensor:
        """Layer `index` on the queries that are still in work; the others stay as they are."""
        live = self._live
        self.layers[index].rows = self._rows[live]
        if given.get("position_embeddings") is not None:
            given["position_embeddings"] = tuple(x[:, live] for x in given["position_embeddings"])
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"][:, live]
        output = forward(hidden[:, live], *args, **given)
        focus = self.taps.focus(index)
        self.done.append(ChunkLayer(index, self._rows[live], focus))
        if focus is not None:
            for number, use in enumerate(self._uses):
                if use.reused and number not in focus:
                    inside = (self._rows >= use.start) & (self._rows < use.start + use.tokens)
                    self._live = self._live & ~inside
        return hidden.index_copy(1, live.nonzero().flatten(), output)

    def _attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """What transformers calls in place of its attention: each query over the keys up to its own position."""
        rows = self._rows[self._live]
        groups = query.shape[1] // key.shape[1]
        keys, values = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        factor = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
        scores = torch.matmul(query, keys.transpose(2, 3)) * factor
        later = torch.arange(key.shape[2]) > rows.unsqueeze(-1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        probability = scores.to(wide).masked_fill(later, float("-inf")).softmax(-1)
        self.taps.see(probability[0], rows)
        return torch.matmul(probability.to(values.dtype), values).transpose(1, 2), None
