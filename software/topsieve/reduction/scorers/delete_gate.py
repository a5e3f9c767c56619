"""`DeleteGate`: one learned unit says of each token whether it may go, MrT5's gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm, Projection

EPSILON = 1e-6  # of the root mean square
STARTING_BIAS = 1.0

Form = Literal["sigmoid", "log-sigmoid"]


class GateUnit(nn.Module):
    """k sigmoid(-(w RMSNorm(x) + c)): near 0 keeps a token, near the negative k deletes it.

    Names of the weights: `norm.weight` [C], `unit.weight` [1, C], `unit.bias` [1].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPSILON)
        self.unit = nn.Linear(width, 1)

    def forward(self, hidden: Tensor, scale: float, form: Form = "sigmoid", noise: Tensor | None = None) -> Tensor:
        """float [B, N] in (scale, 0), of hidden states [B, N, C].

        Parameters
        ----------
        form : "sigmoid", as above, or "log-sigmoid": log sigmoid(w RMSNorm(x) + c), without a lower end.
        noise : float [B, N], added to w RMSNorm(x) + c; in training only.
        """
        logit: Tensor = self.unit(self.norm(hidden)).squeeze(-1)
        if noise is not None:
            logit = logit + noise
        return scale * torch.sigmoid(-logit) if form == "sigmoid" else nn.functional.logsigmoid(logit)


@lru_cache(maxsize=32)
def gate_unit(weights: str, width: int, seed: int) -> GateUnit:
    """The gate in the safetensors file `weights`; without one, as before training: Xavier weights and a bias of 1.

    Raises
    ------
    InputError
        the file is missing or does not fit a model of this width.
    """
    gate = GateUnit(width)
    if weights:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            gate.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(
                f"not a gate for {width} channels: {error}".splitlines()[0], field="weights", value=Path(weights).name
            ) from error
    else:
        with torch.no_grad():
            nn.init.xavier_uniform_(gate.unit.weight, generator=torch.Generator().manual_seed(seed))
            gate.unit.bias.fill_(STARTING_BIAS)
    return gate.eval().requires_grad_(False)


@dataclass(frozen=True)
class DeleteGate:
    """The gate's value of each token: specification `methods-text`, section 5.

    Parameters
    ----------
    scale : k, negative.
    weights : safetensors file of a `GateUnit`; empty for an untrained one.
    seed : of the untrained weights.
    form : of the gate, see `GateUnit`.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HIDDEN})

    scale: float
    weights: str
    seed: int
    form: Form = "sigmoid"

    def score(self, context: Context) -> Tensor:
        hidden = context.signals[Signal.HIDDEN]
        gate = gate_unit(self.weights, hidden.shape[-1], self.seed)
        state = {name: x.to(hidden) for name, x in gate.state_dict().items()}
        score: Tensor = torch.func.functional_call(gate, state, (hidden, self.scale, self.form))
        return score

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return (
            Norm(layer=layer, rows=tokens, width=shape.width),
            Projection(layer=layer, tokens=tokens, inputs=shape.width, outputs=1, role="other"),
        )
