"""A model of vision and language under a method: vision tower, projector, language model.

The tower and the language model are reduced each by itself. Between them, the projector's output is filled up to the
length that the model's place holders ask for; what was filled in leaves with the dropped tokens before the language
model, so that it never sees them. Passes behind the prompt are decoded over the cache that it left.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache

from topsieve.methods import spell
from topsieve.models.families import Multimodal
from topsieve.models.tower import ReducedTower
from topsieve.record import Record, VisionRecord, dense_record
from topsieve.reduction.ordering import compact, live_rank
from topsieve.reduction.roles import Method, Site
from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve.cache.continuing import Continuation


class ReducedMultimodal:
    """The parts of a model of vision and language under one method."""

    def __init__(self, parts: Multimodal, method: Method, *, operands: bool, seed: int) -> None:
        self._parts = parts
        self._method = method
        self._operands = operands
        self._seed = seed
        self._cache: Cache | None = None
        self._seen = False  # the tower has run for the prompt that comes; `generate` lets it run before the model
        self._repeats = 1
        self.vision = ReducedTower(parts.vision, method, operands=operands, seed=seed, ends=False)
        self.language = ReducedTower(parts.language, method, operands=operands, seed=seed)
        self._live = torch.empty(0)
        self._images = torch.empty(0)
        self._projected_tokens = torch.empty(0)
        self._projected_padded = 0

    def install(self, undo: ExitStack) -> None:
        """Put the hooks in; `undo` takes them out."""
        self.vision.install(undo)
        self.language.install(undo)
        projector, language = self._parts.projector, self._parts.language.base
        undo.callback(self._parts.vision.base.register_forward_pre_hook(self._before_tower).remove)
        undo.callback(projector.register_forward_pre_hook(self._before_projector).remove)
        undo.callback(projector.register_forward_hook(self._after_projector).remove)
        undo.callback(language.register_forward_pre_hook(self._before_language, with_kwargs=True).remove)
        undo.callback(language.register_forward_hook(self._after_language).remove)
        undo.callback(setattr, self.language, "continuation", None)

    def start(self, given: dict[str, Any]) -> None:
        """Read the arguments of the whole model's forward pass: a prompt, or what is decoded behind one.

        Raises
        ------
        InputError
            not a prompt of `input_ids` with one image a sequence; or a cache that another prompt filled.
        """
        cache = given.get("past_key_values")
        tokens, pixels = given.get("input_ids"), given.get("pixel_values")
        self.language.decoding = cache is not None and bool(cache.get_seq_length())
        if self.language.decoding:
            self._go_on(cache, tokens, pixels, given.get("attention_mask"))
            return
        self.language.continuation = None
        self._cache = DynamicCache(config=self._parts.language.base.config) if given.get("use_cache") else None
        if cache is not None:
            if not isinstance(cache, Cache):
                raise InputError("not a cache of transformers", field="past_key_values", value=type(cache).__name__)
            self._cache = cache
        seen, self._seen = self._seen, False
        features = (given.get("mm_encoder_outputs") or {}).get("image")
        if tokens is None or (pixels is None and (features is None or not seen)):
            raise InputError("both input_ids and pixel_values are needed", field="input_ids, pixel_values")
        base: Any = self._parts.base
        mask = given.get("attention_mask")
        if mask is not None and mask.shape != tokens.shape:
            raise InputError(
                "wrong shape", field="attention_mask", value=tuple(mask.shape), allowed=f"{tuple(tokens.shape)}"
            )
        self._live = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(torch.bool)
        self._images = (tokens == base.config.image_token_id) & self._live
        counts = self._images.sum(-1).tolist()
        images = len(self.vision.running.valid) if pixels is None else len(pixels)
        # Beams share an image: `generate` has expanded what the projector gave.
        self._repeats = 1 if pixels is not None else max(tokens.shape[0] // images, 1)
        if images * self._repeats != tokens.shape[0] or len(set(counts)) != 1 or not counts[0]:
            raise InputError("every sequence needs one image", field="pixel_values", value=f"{images} images")

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values in the cache now; 0 where none is kept."""
        continuation = self.language.continuation
        return 0 if continuation is None else continuation.nbytes

    def end(self) -> None:
        """The whole model's forward pass is through."""
        continuation = self.language.continuation
        if continuation is not None:
            (continuation.end if self.language.decoding else continuation.filled)()

    def _go_on(self, cache: Any, tokens: Any, pixels: Any, mask: Any) -> None:
        """Begin a pass behind the prompt."""
        continuation = self.language.continuation
        if continuation is None or not continuation.owns(cache):
            raise InputError(
                "this cache was not filled under this reduction",
                field="past_key_values",
                allowed="none, an empty one, or the one that the last prompt filled",
            )
        if tokens is None or pixels is not None:
            raise InputError("behind a prompt come input_ids and no image", field="input_ids, pixel_values")
        continuation.begin(mask, tokens)

    def _continued(self, columns: Tensor) -> Continuation | None:
        """What will decode behind this prompt, whose rows stand at `columns` [B, N]; None where no cache is kept."""
        if self._cache is None:
            return None
        # The cache package stands on this one.
        from topsieve.cache.continuing import Continuation
        from topsieve.cache.families import language_decoder
        from topsieve.cache.roles import CachePolicy, DecodingMethod

        decoder = language_decoder(self._parts.language.base)
        method, shape = self._method, self._parts.language.shape
        policy = method.decoding(shape) if isinstance(method, DecodingMethod) else CachePolicy()
        continuation = Continuation(
            decoder,
            policy,
            [method.attention(shape, layer) for layer in range(shape.layers)],
            spell(method),
            columns=columns,
            live=self._live,
            images=self._images,
            seed=self._seed,
            keep_operands=self._operands,
        )
        continuation.adopt(self._cache)
        return continuation

    def record(self) -> Record:
        """What happened in the language model, with what came before, and the passes behind the prompt."""
        vision = VisionRecord(
            tower=self.vision.running.record(),
            projector=_maps(self._parts.projector),
            projected_tokens=self._projected_tokens,
            projected_padded=self._projected_padded,
            language_tokens=self._live.sum(-1),
            repeats=self._repeats,
        )
        record = self.language.running.record()
        return Record(
            record.shape,
            record.method,
            record.layers,
            boundaries=record.boundaries,
            layers_run=record.layers_run,
            causal=record.causal,
            vision=vision,
            behind=None if self.language.continuation is None else self.language.continuation.record(),
        )

    def _before_tower(self, *_: object) -> None:
        self.vision.forget()

    def _before_projector(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        cut = not self._parts.vision.shape.class_token
        hidden = self.vision.running.at_boundary(Site.OUTPUT, args[0], without_first=cut)
        self._projected_tokens = self.vision.running.valid.sum(-1)
        self._projected_padded = hidden.shape[1]
        return (hidden, *args[1:])

    def _after_projector(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        hidden = self.vision.running.at_boundary(
            Site.PROJECTED, output, features=args[0], project=type(module).forward.__get__(module)
        )
        wanted = self.vision.running.tokens
        self._seen = True
        if hidden.shape[1] > wanted:
            raise InputError(f"more tokens than the image had: {hidden.shape[1]}", field="method", allowed=str(wanted))
        filled = hidden.new_zeros((hidden.shape[0], wanted, hidden.shape[2]))
        filled[:, : hidden.shape[1]] = hidden * self.vision.running.valid.unsqueeze(-1)
        return filled

    def _before_language(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Drop the place holders of image tokens that are gone, and start the language model's pass."""
        if self.language.decoding:
            return args, kwargs
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        left = self.vision.running.valid.sum(-1, keepdim=True).repeat_interleave(self._repeats, 0)
        valid = self._live & (~self._images | (live_rank(self._images) < left))
        embedded = given["inputs_embeds"]
        positions = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
        if bool((valid == self._live).all()):
            # Nothing was removed: the model keeps its own padding, mask and positions.
            ids = given.get("position_ids")
            ids = positions if ids is None else ids.expand(valid.shape)
            self.language.start(
                valid, positions=positions.masked_fill(~valid, -1), position_ids=ids, segment=self._images
            )
            self.language.continuation = self._continued(positions)
            return (), given | ({} if self._cache is None else {"past_key_values": self._cache})
        columns, live = compact(valid)
        rows = torch.arange(len(valid), device=valid.device).unsqueeze(1)
        source = columns.clamp(min=0)
        ids = torch.arange(live.shape[1], device=valid.device).expand(live.shape)
        segment = self._images[rows, source] & live
        self.language.start(live, positions=self._origins(columns, segment), position_ids=ids, segment=segment)
        given |= {
            "inputs_embeds": embedded[rows, source] * live.unsqueeze(-1),
            "attention_mask": live.to(torch.int64),
            "position_ids": None,
        }
        self.language.continuation = self._continued(columns)
        return (), given | ({} if self._cache is None else {"past_key_values": self._cache})

    def _after_language(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Where padding stood in front of the sequences, or nowhere, their last tokens end the rows again."""
        valid = self.language.running.valid
        if not self.language.decoding and bool(self._live[:, -1].all()) and not bool(valid[:, -1].all()):
            output.last_hidden_state = self.language.running.moved_to_end(output.last_hidden_state)
        return output

    def _origins(self, columns: Tensor, segment: Tensor) -> Tensor:
        """`columns` [B, K] with those of image tokens replaced by the place holders of the patches they stand at."""
        tower = self.vision.running
        skipped = 0 if self._parts.vision.shape.class_token else 1
        slot = live_rank(segment).clamp(min=0)
        positions = tower.positions.repeat_interleave(self._repeats, 0)
        if not positions.shape[1]:
            return columns
        patch = positions.gather(1, slot.clamp(max=positions.shape[1] - 1)) - skipped
        first = self._images.to(torch.int8).argmax(-1, keepdim=True)
        return torch.where(segment, torch.where(patch >= 0, patch + first, -1), columns)


def whole_images(parts: Multimodal, images: int, language_tokens: Tensor) -> VisionRecord:
    """Tower and projector that nothing reduces, for `images` and prompts of `language_tokens` (int64 [B])."""
    shape, config = parts.vision.shape, parts.vision.base.config
    patches = torch.full_like(language_tokens[:images], (config.image_size // config.patch_size) ** 2)
    projected = patches + (1 if shape.class_token else 0)
    tower = dense_record(shape, patches + 1)
    return VisionRecord(
        tower,
        _maps(parts.projector),
        projected,
        int(projected.max()),
        language_tokens,
        repeats=len(language_tokens) // images,
    )


def _maps(projector: nn.Module) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of its linear maps."""
    layers = [layer for layer in projector.modules() if isinstance(layer, nn.Linear)]
    return tuple((layer.in_features, layer.out_features) for layer in layers)
