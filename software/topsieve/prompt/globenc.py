"""GlobEnc: norms of what tokens pass to each other in each layer, rolled out over the layers.

Specification `methods-text`, section 3c, steps 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from topsieve.prompt.trail import LayerTrail, normalised, trail
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Norm, Projection, Similarity


def layer_norms(layer: LayerTrail) -> Tensor:
    """float [n, n]: length of what token j passes to token i through attention, residual and both LayerNorms.

    The biases of LayerNorms and of the output projection, and the FFN, are left out.
    """
    projected = torch.einsum("hjd,hdc->hjc", layer.value, layer.output_weight)
    parts = torch.einsum("hij,hjc->ijc", layer.probability, projected)
    parts = parts + torch.diag_embed(layer.hidden.T).permute(1, 2, 0)
    parts = normalised(parts, layer.attended, layer.layer.attention.output.LayerNorm)
    parts = normalised(parts, layer.summed, layer.layer.output.LayerNorm)
    lengths: Tensor = torch.linalg.vector_norm(parts, dim=-1)
    return lengths


def globenc(model: Any, ids: list[int]) -> Tensor:
    """float [n]: what the first token's last state owes to each token, the largest of them 1."""
    layers, _ = trail(model, ids)
    rolled = layer_norms(layers[0])
    for layer in layers[1:]:
        rolled = layer_norms(layer) @ rolled
    first = rolled[0]
    return first / first.max()


def globenc_work(shape: ModelShape, tokens: int) -> tuple[Op, ...]:
    """What the norms and the rollout cost beyond the pass itself."""
    ops: list[Op] = []
    pairs = tokens * tokens
    for layer in range(shape.layers):
        rows = tokens * shape.heads
        ops.append(Projection(layer=layer, tokens=rows, inputs=shape.head_dim, outputs=shape.width, role="other"))
        ops.append(Merge(layer=layer, sources=shape.heads * pairs, targets=pairs, width=shape.width, divide=False))
        ops.append(Norm(layer=layer, rows=pairs, width=shape.width))
        if layer:
            ops.append(Similarity(layer=layer, rows_a=tokens, rows_b=tokens, width=tokens))
    return tuple(ops)
