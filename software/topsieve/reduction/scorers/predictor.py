"""`Predictor`: a small learned network scores each token, DynamicViT's prediction module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Projection

INITIAL_STANDARD_DEVIATION = 0.02


class PredictorNetwork(nn.Module):
    """LayerNorm, Linear(C, C), GELU; half of it joined with the mean of the other half; Linear to C/2, C/4 and 2.

    The names are those of the published code, `in_conv` and `out_conv`, so its weights fit.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
            nn.LogSoftmax(dim=-1),
        )

    def forward(self, tokens: Tensor, live: Tensor) -> Tensor:
        """Log-probability to keep, float [B, N], of tokens [B, N, C] of which bool `live` [B, N] count."""
        inner = self.in_conv(tokens)
        half = inner.shape[-1] // 2
        weight = live.unsqueeze(-1).to(inner.dtype)
        mean = (inner[..., half:] * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        joined = torch.cat([inner[..., :half], mean.expand(*inner.shape[:2], -1)], dim=-1)
        scores: Tensor = self.out_conv(joined)[..., 0]
        return scores


@lru_cache(maxsize=32)
def predictor_network(weights: str, stage: int, width: int, seed: int) -> PredictorNetwork:
    """The network of a stage: from a safetensors file (keys `score_predictor.STAGE...`), else as before training."""
    network = PredictorNetwork(width)
    if weights:
        from safetensors.torch import load_file

        prefix = f"score_predictor.{stage}."
        stored = load_file(weights)
        network.load_state_dict({key[len(prefix) :]: x for key, x in stored.items() if key.startswith(prefix)})
    else:
        random = torch.Generator().manual_seed(seed + stage)
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.normal_(0, INITIAL_STANDARD_DEVIATION, generator=random)
                    layer.bias.zero_()
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Predictor:
    """The first channel of a learned network on the tokens behind CLS: specification `methods-more`, DynamicViT.

    Parameters
    ----------
    layers : the stages' layers in order; each stage has its own network.
    weights : safetensors file; empty for an untrained network.
    seed : of the untrained weights.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HIDDEN})

    layers: tuple[int, ...]
    weights: str
    seed: int

    def score(self, context: Context) -> Tensor:
        hidden = context.signals[Signal.HIDDEN]
        stage = self.layers.index(context.layer)
        network = predictor_network(self.weights, stage, hidden.shape[-1], self.seed)
        first = context.valid & (context.valid.cumsum(-1) == 1)
        state = {name: x.to(hidden) for name, x in network.state_dict().items()}
        scores: Tensor = torch.func.functional_call(network, state, (hidden, context.valid & ~first))
        return scores

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        if tokens < 2:
            return ()
        width = shape.width
        maps = ((width, width), (width, width // 2), (width // 2, width // 4), (width // 4, 2))
        projections = [
            Projection(layer=layer, tokens=tokens - 1, inputs=max(a, 1), outputs=max(b, 1), role="other")
            for a, b in maps
        ]
        mean = Merge(layer=layer, sources=tokens - 1, targets=1, width=max(width // 2, 1))
        return (projections[0], mean, *projections[1:])
