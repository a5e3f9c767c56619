"""Which blocks of tokens matter to a layer: LeMo's predictor, the map that it learns, and the scores of both.

Specification `methods-text`, section 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from topsieve.reduction.ordering import stable_top_k
from topsieve_sim.errors import InputError

FIRST_HIDDEN = 128  # before units are pruned away; the second hidden layer is as wide as a block of one head
TARGET_SCALE = 1 / 16


class BlockPredictor(nn.Module):
    """Two networks of three maps, shared by all heads, from a block of one head's slice to a query and a key.

    Parameters
    ----------
    heads : slices the hidden state is cut into. head_dim : width of a slice. block : tokens of a block.
    hidden : units of the two hidden layers.
    bias : as in the published inference class; its training class has none.
    """

    def __init__(
        self, heads: int, head_dim: int, block: int, hidden: tuple[int, int] | None = None, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.block = heads, block
        inputs = block * head_dim
        first, second = (FIRST_HIDDEN, inputs) if hidden is None else hidden
        self.query, self.key = (
            nn.Sequential(
                nn.Linear(inputs, first, bias=bias),
                nn.ReLU(),
                nn.Linear(first, second, bias=bias),
                nn.ReLU(),
                nn.Linear(second, head_dim, bias=bias),
            )
            for _ in range(2)
        )

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear maps of both networks."""
        return tuple(
            (layer.in_features, layer.out_features)
            for network in (self.query, self.key)
            for layer in network
            if isinstance(layer, nn.Linear)
        )

    def blocks(self, hidden: Tensor) -> Tensor:
        """[B, H, nb, block d] of the layer's normalised input [B, N, C]; a last block that is not full ends in zeros."""
        padded = nn.functional.pad(hidden, (0, 0, 0, -hidden.shape[1] % self.block))
        return padded.unflatten(1, (-1, self.block)).unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4).flatten(3)

    def forward(self, hidden: Tensor) -> Tensor:
        """float [B, nb, nb]: how much the tokens of each block look at each other block; no mask, no scale."""
        blocks = self.blocks(hidden)
        # The sum over heads of products is the product of the heads side by side.
        query, key = (network(blocks).transpose(1, 2).flatten(2) for network in (self.query, self.key))
        return query @ key.transpose(1, 2)


def attention_map(query: Tensor, key: Tensor, block: int) -> Tensor:
    """float [B, nb, nb]: what the predictor learns, the largest of the heads' summed positive products in each pair of blocks.

    Parameters
    ----------
    query : float [B, H, N, d], before rotation. key : float [B, KV, N, d].
    """
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    products = (query @ keys.transpose(2, 3)).relu().sum(1)
    return nn.functional.max_pool2d(products.unsqueeze(1), block, ceil_mode=True).squeeze(1) * TARGET_SCALE


def block_scores(blocks: Tensor) -> Tensor:
    """float [B, nb]: how much all blocks together look at each."""
    return blocks.sum(-2)


def kept_blocks(scores: Tensor, keep: float | None, threshold: float | None) -> Tensor:
    """int64 [B, m]: blocks that stay, ascending; of equal scores the earlier.

    int(nb x keep) of them, at least one, in the published expression, which truncates binary noise; or those over a
    threshold, as many in each row as in the row that has most, at least one.
    """
    counts = scores.shape[1]
    if threshold is not None:
        m = max(int((scores > threshold).sum(-1).max()), 1)
    else:
        assert keep is not None
        m = max(int(counts * keep), 1)
    return stable_top_k(scores, torch.full((len(scores),), m), torch.ones_like(scores, dtype=torch.bool))[0]


def rows_of_blocks(blocks: Tensor, block: int, tokens: int) -> Tensor:
    """int64 [B, n]: the tokens of `blocks` [B, m]; a last block that is not full has fewer.

    Raises
    ------
    InputError
        the rows of a batch would differ in length.
    """
    rows = (blocks.unsqueeze(-1) * block + torch.arange(block, device=blocks.device)).flatten(1)
    if tokens % block == 0:
        return rows
    if len(rows) > 1:
        raise InputError(
            "a batch needs whole blocks", field="input_ids", value=f"{tokens} tokens", allowed=f"a multiple of {block}"
        )
    return rows[:, rows[0] < tokens]


@lru_cache(maxsize=8)
def predictors(
    weights: str, layers: tuple[int, ...], heads: int, head_dim: int, block: int, seed: int
) -> Mapping[int, BlockPredictor]:
    """The predictor of each of `layers`: of a safetensors file (`layers.L.query.0.weight`, ...), else untrained.

    Raises
    ------
    InputError
        the file is missing or does not fit.
    """
    if not weights:
        made = {}
        with torch.random.fork_rng(devices=[]):
            for layer in layers:
                torch.manual_seed(seed + layer)
                made[layer] = BlockPredictor(heads, head_dim, block).eval().requires_grad_(False)
        return made
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(weights)
        return {layer: _loaded(stored, layer, heads, head_dim, block) for layer in layers}
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise InputError(
            f"not the predictors of this model: {error}".splitlines()[0], field="weights", value=Path(weights).name
        ) from error


def _loaded(stored: Mapping[str, Tensor], layer: int, heads: int, head_dim: int, block: int) -> BlockPredictor:
    prefix = f"layers.{layer}."
    mine = {name[len(prefix) :]: x for name, x in stored.items() if name.startswith(prefix)}
    first, second = mine["query.0.weight"].shape[0], mine["query.2.weight"].shape[0]
    made = BlockPredictor(heads, head_dim, block, (first, second), bias="query.0.bias" in mine)
    # Units are pruned from each network by itself.
    for name in ("query", "key"):
        resized(getattr(made, name), [mine[f"{name}.{place}.weight"].shape[0] for place in (0, 2)])
    made.load_state_dict(mine)
    return made.eval().requires_grad_(False)


def resized(network: nn.Sequential, hidden: list[int]) -> None:
    """Give the hidden layers of `network` new sizes; their weights are new too."""
    bias = network[0].bias is not None
    sizes = [network[0].in_features, *hidden, network[4].out_features]
    for place, (inputs, outputs) in zip((0, 2, 4), itertools.pairwise(sizes), strict=True):
        network[place] = nn.Linear(inputs, outputs, bias=bias).to(network[place].weight)
