"""`ByteDecoder`: byte-gpt with a cache whose rows can be masked, chosen and moved, for transforms that decode."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from topsieve.cache.families import decoder_of
from topsieve.reduction.roles import ModelShape
from topsieve.subjects.byte_gpt import text
from topsieve.subjects.byte_gpt.model import POSITIONS, load_byte_gpt
from topsieve.transforms.workload import OUTSIDE, output_head
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ArgmaxRow

VOCABULARY = 256


@dataclass(frozen=True)
class ByteDecoder:
    """A GPT-2 of the Hugging Face library in evaluation mode, with its shape."""

    model: Any
    shape: ModelShape

    def fresh(self) -> Any:
        """An empty cache."""
        from transformers import DynamicCache

        return DynamicCache()

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, cache: Any, *, positions: Tensor | None = None, visible: Tensor | None = None
    ) -> Tensor:
        """Logits float [B, Q, V] of the tokens `ids` int64 [B, Q]; their keys and values go into `cache`.

        Parameters
        ----------
        positions : int64 [B, Q]; by default they go on from the cache.
        visible : bool [B, Q, K], the keys each query attends to, old and new; by default causal.
        """
        mask = None if visible is None else visible[:, None]
        out = self.model(
            input_ids=ids, past_key_values=cache, position_ids=positions, attention_mask=mask, use_cache=True
        )
        logits: Tensor = out.logits
        return logits

    @torch.inference_mode()
    def hidden(self, ids: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """Last hidden states float [B, Q, D] (after the final norm) and logits float [B, Q, V], causal."""
        states: Tensor = self.model.transformer(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        logits: Tensor = self.model.lm_head(states)
        return states, logits

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """`count` tokens behind `prompt`, one a pass; ties go to the lowest token."""
        cache, ids, out = self.fresh(), list(prompt), []
        for _ in range(count):
            logits = self.forward(torch.tensor([ids]), cache)
            out.append(int(logits[0, -1].argmax()))
            ids = out[-1:]
        return out

    def shallow(self, layers: int) -> ByteDecoder:
        """The first `layers` layers with the same final norm and output map: a smaller model that needs no training."""
        model = copy.copy(self.model)
        model._modules = dict(self.model._modules)
        model.transformer = copy.copy(self.model.transformer)
        model.transformer._modules = dict(self.model.transformer._modules)
        model.transformer.h = self.model.transformer.h[:layers]
        return ByteDecoder(model, replace(self.shape, name=f"{self.shape.name}[:{layers}]", layers=layers))


def chosen_rows(cache: Any, rows: Tensor) -> None:
    """Keep only the cache's `rows` int64 [N], in this order."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, rows], layer.values[:, :, rows]


def cut(cache: Any, length: int) -> None:
    """Keep the cache's first `length` rows."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


@cache
def byte_decoder() -> ByteDecoder:
    """The trained `byte-gpt`."""
    model = load_byte_gpt()
    return ByteDecoder(model, decoder_of(model).shape)


def picks(shape: ModelShape, rows: int) -> tuple[Op, ...]:
    """Logits of `rows` tokens and the best token of each."""
    return (output_head(shape, rows, VOCABULARY), ArgmaxRow(layer=OUTSIDE, rows=rows, cols=VOCABULARY))


def prompts(count: int, length: int, seed: int, *, content: bytes | None = None) -> list[list[int]]:
    """`count` windows of `length` bytes of `content`, by default of text that byte-gpt was not trained on."""
    draw = random.Random(seed)
    source = text.reference(held_out=True) if content is None else content
    return [list(text.window(draw, source, length)) for _ in range(count)]


def fits(prompt: int, more: int) -> bool:
    """Whether a prompt and what is run behind it stay within the model's positions."""
    return prompt + more <= POSITIONS
