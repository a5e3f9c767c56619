"""A model of vision and language under a method: vision tower, projector, language model.

The tower and the language model are reduced each by itself. Between them, the projector's output is filled up to the
length that the model's place holders ask for; what was filled in leaves with the dropped tokens before the language
model, so that it never sees them.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.models.families import Multimodal
from topsieve.models.tower import ReducedTower
from topsieve.record import Record, VisionRecord
from topsieve.reduction.ordering import compact, live_rank
from topsieve.reduction.roles import Method, Site
from topsieve_sim.errors import InputError


class ReducedMultimodal:
    """The parts of a model of vision and language under one method."""

    def __init__(self, parts: Multimodal, method: Method, *, operands: bool, seed: int) -> None:
        self._parts = parts
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
        undo.callback(projector.register_forward_pre_hook(self._before_projector).remove)
        undo.callback(projector.register_forward_hook(self._after_projector).remove)
        undo.callback(language.register_forward_pre_hook(self._before_language, with_kwargs=True).remove)

    def start(self, given: dict[str, Any]) -> None:
        """Read the arguments of the whole model's forward pass.

        Raises
        ------
        InputError
            not a prefill of `input_ids` with one image a sequence; or a decoding step.
        """
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            raise InputError("only the prefill can be reduced", field="past_key_values", allowed="none, or empty")
        tokens, pixels = given.get("input_ids"), given.get("pixel_values")
        if tokens is None or pixels is None:
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
        if pixels.shape[0] != tokens.shape[0] or len(set(counts)) != 1 or not counts[0]:
            raise InputError("every sequence needs one image", field="pixel_values", value=tuple(pixels.shape))
        self.vision.forget()

    def record(self) -> Record:
        """What happened in the language model, with what came before."""
        layers = [layer for layer in self._parts.projector.modules() if isinstance(layer, nn.Linear)]
        vision = VisionRecord(
            tower=self.vision.running.record(),
            projector=tuple((layer.in_features, layer.out_features) for layer in layers),
            projected_tokens=self._projected_tokens,
            projected_padded=self._projected_padded,
            language_tokens=self._live.sum(-1),
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
        )

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
        wanted = int(self._images.sum(-1)[0])
        if hidden.shape[1] > wanted:
            raise InputError(f"more tokens than the image had: {hidden.shape[1]}", field="method", allowed=str(wanted))
        filled = hidden.new_zeros((hidden.shape[0], wanted, hidden.shape[2]))
        filled[:, : hidden.shape[1]] = hidden * self.vision.running.valid.unsqueeze(-1)
        return filled

    def _before_language(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Drop the place holders of image tokens that are gone, and start the language model's pass."""
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        left = self.vision.running.valid.sum(-1, keepdim=True)
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
            return args, kwargs
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
        return (), given

    def _origins(self, columns: Tensor, segment: Tensor) -> Tensor:
        """`columns` [B, K] with those of image tokens replaced by the place holders of the patches they stand at."""
        tower = self.vision.running
        skipped = 0 if self._parts.vision.shape.class_token else 1
        slot = live_rank(segment).clamp(min=0)
        if not tower.positions.shape[1]:
            return columns
        patch = tower.positions.gather(1, slot.clamp(max=tower.positions.shape[1] - 1)) - skipped
        first = self._images.to(torch.int8).argmax(-1, keepdim=True)
        return torch.where(segment, torch.where(patch >= 0, patch + first, -1), columns)
