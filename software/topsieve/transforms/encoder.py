"""MiniLM for transforms of encoders: its shape, its embeddings, the passes of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from topsieve.models import mean_pool
from topsieve.models.families import parts_of
from topsieve.pretrained import Pretrained, load_pretrained
from topsieve.reduction.roles import ModelShape
from topsieve.transforms.workload import Pass
from topsieve_sim.trace import Op

BATCH = 64


@cache
def minilm() -> Pretrained:
    """MiniLM with its tokenizer."""
    return load_pretrained()


def shape() -> ModelShape:
    """MiniLM's shape."""
    return parts_of(minilm().model).shape


@torch.inference_mode()
def states(rows: Sequence[Sequence[int]], embeddings: Tensor | None = None) -> list[Tensor]:
    """Last hidden states of each row of token ids, float [n, D].

    Parameters
    ----------
    embeddings : float [V, D], rows that stand for the ids instead of MiniLM's own.
    """
    loaded, out = minilm(), []
    for start in range(0, len(rows), BATCH):
        batch = loaded.batch(rows[start : start + BATCH])
        if embeddings is not None:
            ids = batch.pop("input_ids")
            batch["inputs_embeds"] = embeddings[ids * batch["attention_mask"]]
        hidden = loaded.model(**batch).last_hidden_state
        out += [hidden[index, : int(row.sum())] for index, row in enumerate(batch["attention_mask"])]
    return out


def embedded(rows: Sequence[Sequence[int]], embeddings: Tensor | None = None) -> Tensor:
    """Unit vectors float [rows, D]: the mean of the last hidden states; parameters as of `states`."""
    means = [mean_pool(row[None], torch.ones(1, len(row), dtype=torch.bool))[0] for row in states(rows, embeddings)]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def encoder_passes(lengths: Sequence[int], work: tuple[Op, ...] = ()) -> tuple[Pass, ...]:
    """One pass a sequence in which every token sees all."""
    of = shape()
    return tuple(
        Pass(shape=of, queries=length, keys=length, sequence=number, causal=False, work=work)
        for number, length in enumerate(lengths)
    )
