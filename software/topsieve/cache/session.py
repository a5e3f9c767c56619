"""Run a Hugging Face decoder under a cache method, and leave it as it was."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import Cache

from topsieve.cache.families import Decoder, decoder_of, holds_decoder
from topsieve.cache.record import CacheRecord
from topsieve.cache.roles import CacheMethod, CacheOnly, CachePolicy
from topsieve.cache.run import CacheRun
from topsieve.methods import spell
from topsieve.models.families import Multimodal, check_attention, parts_of
from topsieve.models.hosting import Entered, attention_kernel, registered, unused_name
from topsieve.models.multimodal import whole_images
from topsieve_sim.errors import InputError


class CachedModel(Entered):
    """A decoder under a cache method, for the length of a `with` block. `topsieve.reduce` makes it.

    Each prompt starts a new cache; the passes after it, of `generate` or with `past_key_values` given, go on with it. A
    cache made in the block is of use in the block only.

    record : `CacheRecord`, what happened since the last prompt.
    """

    def __init__(self, model: Any, method: CacheMethod, *, operands: bool = False, seed: int = 0) -> None:
        self._decoder: Decoder = decoder_of(model)
        parts = parts_of(model) if holds_decoder(model) else None
        self._whole = parts if isinstance(parts, Multimodal) else None
        self._images = 0
        self._method = method
        self._policy: CachePolicy = method.cache(self._decoder.shape)
        if self._policy.cache_positions and self._decoder.rotary is None:
            raise InputError(
                "keys of learned positions cannot be moved",
                source=f"method {method.name}",
                field="positions",
                value="cache",
                allowed="original, on this model",
            )
        self._operands = operands
        self._seed = seed
        self._run: CacheRun | None = None
        self._cache: Cache | None = None

    @property
    def method(self) -> CacheMethod:
        """The method."""
        return self._method

    @property
    def record(self) -> CacheRecord:
        """What happened since the last prompt."""
        if self._run is None:
            raise InputError("no forward pass has finished yet", field="reduce")
        record = self._run.record()
        if self._whole is None or not self._images:
            return record
        return replace(record, vision=whole_images(self._whole, self._images, record.passes[0][0].queries))

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values in the cache now."""
        if self._run is None:
            return 0
        return sum(layer.nbytes for layer in self._run.layers)

    def held(self, columns: int) -> tuple[Tensor, Tensor]:
        """bool [L, B, KV, columns] each: columns whose slot is still held, and of these the slots made of several."""
        if self._run is None:
            raise InputError("no forward pass has finished yet", field="reduce")
        heads = self._decoder.shape.kv_heads
        held, shared = [], []
        for layer in self._run.layers:
            if not layer.is_initialized:  # it was skipped from the prompt on
                nothing = torch.zeros((len(self._run.layers[0].columns) // heads, heads, columns), dtype=torch.bool)
                held.append(nothing)
                shared.append(nothing)
                continue
            there = layer.occupied & (layer.columns < columns)
            place = layer.columns.clamp(0, columns - 1)
            for marks, found in ((there, held), (there & (layer.size > 1), shared)):
                spread = torch.zeros((len(there), columns), dtype=torch.int64).scatter_add(1, place, marks.long())
                found.append((spread > 0).reshape(-1, heads, columns))
        return torch.stack(held), torch.stack(shared)

    def report(self) -> str:
        """Slots of each layer, bytes and FLOPs, as text."""
        from topsieve.cache.lowering import describe

        return describe(self.record)

    def __enter__(self) -> Self:
        base = self._decoder.base
        previous = base.config._attn_implementation
        check_attention(previous)
        if self._undo is not None:
            raise InputError("this reduction is already in use", field="reduce")
        name = unused_name()
        with ExitStack() as undo:
            # A mask function of the same name, or transformers would drop the padding mask without a word.
            registered(undo, AttentionMaskInterface, name, AttentionMaskInterface._global_mapping[previous])
            registered(undo, AttentionInterface, name, self._attention_function(previous))
            undo.callback(setattr, base.config, "_attn_implementation_internal", previous)
            base.set_attn_implementation(name)
            if self._policy.layers is not None:
                for index, block in enumerate(self._decoder.blocks):
                    vars(block)["forward"] = functools.partial(self._run_or_skip, index, block.forward)
                    undo.callback(vars(block).pop, "forward")
            if self._whole is not None:
                undo.callback(self._whole.base.register_forward_pre_hook(self._look, with_kwargs=True).remove)
                undo.callback(self._whole.vision.base.register_forward_hook(self._count_images).remove)
            undo.callback(base.register_forward_pre_hook(self._start, with_kwargs=True).remove)
            undo.callback(base.register_forward_hook(self._stop).remove)
            self._undo = undo.pop_all()
        return self

    def _look(self, whole: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forget the images of another prompt; those of this one are counted when the tower has seen them."""
        given = inspect.signature(whole.forward).bind(*args, **kwargs).arguments
        cache = given.get("past_key_values")
        if (cache is None or not cache.get_seq_length()) and not given.get("mm_encoder_outputs"):
            self._images = 0

    def _count_images(self, tower: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._images = len(output.last_hidden_state)

    def _start(
        self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        given = inspect.signature(base.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        if given.get("output_attentions"):
            raise InputError("is not available under a reduction", field="output_attentions", allowed="False")
        use_cache = given.get("use_cache")
        if use_cache is False or (use_cache is None and not base.config.use_cache):  # type: ignore[union-attr]
            raise InputError("a cache method needs the cache", field="use_cache", value=False, allowed="True")
        tokens = given.get("input_ids")
        tokens = given.get("inputs_embeds") if tokens is None else tokens
        if tokens is None:
            raise InputError("one of input_ids and inputs_embeds is needed", field="input_ids")
        cache = given.get("past_key_values")
        if cache is None:
            cache = DynamicCache(config=base.config)
        if not isinstance(cache, Cache):
            raise InputError("not a cache of transformers", field="past_key_values", value=type(cache).__name__)
        self._adopt(cache)
        assert self._run is not None
        queries = tokens.shape[1]
        live = _live_columns(given.get("attention_mask"), tokens, self._run.seen + queries)
        if given.get("position_ids") is None and not bool(live.all()):
            # The model would count padding as positions.
            positions = (live.cumsum(-1) - 1).clamp(min=0)[:, -queries:]
            given["position_ids"] = positions
        self._run.begin(live, queries)
        given["past_key_values"] = cache
        return (), given

    def _adopt(self, cache: Cache) -> None:
        """Give an empty cache layers of ours; go on with the one that has them."""
        if self._run is not None and cache is self._cache and cache.layers == self._run.layers and self._run.seen:
            return
        if cache.get_seq_length():
            raise InputError(
                "this cache was not filled under this reduction",
                field="past_key_values",
                allowed="an empty cache, or none",
            )
        self._run = CacheRun(
            self._decoder, self._policy, spell(self._method), seed=self._seed, keep_operands=self._operands
        )
        cache.layers = list(self._run.layers)
        self._cache = cache

    def _run_or_skip(self, index: int, forward: Callable[..., Tensor], hidden: Tensor, *args: Any, **kw: Any) -> Tensor:
        """The forward pass of layer `index`, or the hidden states as they came."""
        assert self._run is not None
        return forward(hidden, *args, **kw) if self._run.runs(index) else hidden

    def _stop(self, *_: object) -> None:
        assert self._run is not None
        self._run.end()

    def _attention_function(self, previous: str) -> Any:
        """What transformers calls in place of its attention; `previous` names the implementation it replaces."""
        numbers = {id(module): index for index, module in enumerate(self._decoder.attentions)}

        def attention(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor | None,
            scaling: float | None = None,
            dropout: float = 0.0,
            **others: Any,
        ) -> tuple[Tensor, None]:
            factor = query.shape[-1] ** -0.5 if scaling is None else scaling
            assert self._run is not None

            def kernel() -> Tensor:
                function = attention_kernel(previous, module)
                return function(module, query, key, value, attention_mask, scaling=factor, dropout=dropout, **others)[0]

            return self._run.attention(numbers[id(module)], query, key, value, kernel, scaling=factor), None

        return attention


def _live_columns(mask: Any, tokens: Tensor, total: int) -> Tensor:
    """bool [B, T], the live columns of the whole sequence."""
    if mask is None:
        return torch.ones((tokens.shape[0], total), dtype=torch.bool, device=tokens.device)
    wanted = (tokens.shape[0], total)
    if not isinstance(mask, Tensor) or tuple(mask.shape) != wanted:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError("wrong shape", field="attention_mask", value=shape, allowed=f"{wanted}")
    live: Tensor = mask.to(torch.bool)
    if not bool(live[:, -1].all()) or bool((live[:, :-1] & ~live[:, 1:]).any()):
        raise InputError(
            "padding must stand on the left and leave at least one token", field="attention_mask", allowed="0...0 1...1"
        )
    return live


def acts_on_cache_only(method: object) -> bool:
    """Whether `method` does nothing to a model without a cache."""
    return isinstance(method, CacheOnly)


def cached(model: Any, method: Any, *, operands: bool, seed: int) -> CachedModel:
    """`model`, a decoder, under `method`.

    Raises
    ------
    InputError
        the method does not act on decoders, or as of `decoder_of`.
    """
    if not isinstance(method, CacheMethod):
        raise InputError("the method does not act on decoders", field="method", value=method.name)
    return CachedModel(model, method, operands=operands, seed=seed)
