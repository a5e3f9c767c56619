"""Run a decoder on a prompt and then on given tokens one by one, as decoding would, under a cache method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topsieve.cache.record import CacheRecord
from topsieve.cache.session import CachedModel
from topsieve.models import reduce
from topsieve.reduction.roles import Method
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class Decoded:
    """What came out.

    Parameters
    ----------
    logits : float [B, 1 + T, V], behind the prompt and behind each of the T given tokens.
    record : of all passes.
    held : bool [L, B, KV, N], which of the prompt's N tokens each layer's heads still hold.
    shared : bool [L, B, KV, N], of these the slots that others were merged into.
    """

    logits: Tensor
    record: CacheRecord
    held: Tensor
    shared: Tensor


def decode(
    model: Any, method: Method, prompt: Tensor, given: Tensor, *, operands: bool = False, seed: int = 0
) -> Decoded:
    """Run `model` under `method`.

    Parameters
    ----------
    prompt : int64 [B, N]. given : int64 [B, T].
    operands, seed : as of `topsieve.reduce`.
    """
    with torch.inference_mode(), reduce(model, method, operands=operands, seed=seed) as reduced:
        if not isinstance(reduced, CachedModel):
            raise InputError("does nothing in decoding", source=f"method {method.name}", value=type(model).__name__)
        out = model(input_ids=prompt, use_cache=True)
        logits = [out.logits[:, -1]]
        for step in range(given.shape[1]):
            out = model(input_ids=given[:, step : step + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[:, -1])
        held, shared = reduced.held(prompt.shape[1])
        return Decoded(torch.stack(logits, 1), reduced.record, held, shared)
