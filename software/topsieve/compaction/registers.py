"""FALCON's registers: learned tokens beside the patches of every crop, which exchange what they hold in every layer.

Specification `methods-vision`, section 8.2. The registers alone go to the language model, a slice of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ProbabilityValue, Projection, QueryKey, Softmax


def with_registers(patches: Tensor, registers: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Patches [C, N, D] of C crops with M registers behind them: [C, N + M, D].

    Parameters
    ----------
    registers : float [M, D].
    rows, columns : float [C, D], learned vectors of each crop's place; half of them is added to its registers only.
    """
    return torch.cat([patches, registers + 0.5 * (rows + columns).unsqueeze(1)], dim=1)


def exchange(attended: Tensor, registers: int, crops: Sequence[int], interact: Callable[[Tensor], Tensor]) -> Tensor:
    """`attended` [C, N + M, D] with the registers of each image's crops having attended to each other.

    Between the layer's own attention and its residual, without a normalisation.

    Parameters
    ----------
    registers : M.
    crops : of each image, in order.
    interact : self-attention of [1, n, D].
    """
    parts = []
    first = attended.shape[1] - registers
    for own in attended[:, first:].split(list(crops)):
        together = own.flatten(0, 1).unsqueeze(0)
        parts.append((together + interact(together)).reshape(own.shape))
    return torch.cat([attended[:, :first], torch.cat(parts)], dim=1)


def exchange_work(heads: int, head_dim: int, registers: int, crops: int, layer: int = 0) -> tuple[Op, ...]:
    """One image, one layer: a whole self-attention over all crops' registers."""
    tokens, width = registers * crops, heads * head_dim
    sizes = {"layer": layer, "heads": heads}
    return (
        Projection(layer=layer, tokens=tokens, inputs=width, outputs=3 * width, role="qkv"),
        QueryKey(**sizes, kv_heads=heads, queries=tokens, keys=tokens, head_dim=head_dim),
        Softmax(**sizes, rows=tokens, cols=tokens),
        ProbabilityValue(**sizes, kv_heads=heads, queries=tokens, keys=tokens, kept=tokens, head_dim=head_dim),
        Projection(layer=layer, tokens=tokens, inputs=width, outputs=width, role="o"),
    )
