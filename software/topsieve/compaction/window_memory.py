"""After Vision Remember: every image token looks again at its own window of the vision tower's feature maps.

Specification `methods-vision`, section 9. No code is public and sizes and places could not be read, so this is one reading of
the paper: windows tile the map, each token of an n x n grid attends to the (side / n)^2 features of its window.
"""

from __future__ import annotations

from torch import Tensor

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Gather, ProbabilityValue, QueryKey, Softmax


def windows(features: Tensor, grid: int) -> Tensor:
    """A map [B, side, side, C] as [B, grid^2, (side / grid)^2, C], both in raster order.

    Raises
    ------
    ValueError
        the grid does not divide the map.
    """
    batch, side, _, width = features.shape
    if side % grid:
        raise ValueError(f"a map of side {side} cannot be cut into {grid} x {grid} windows")
    step = side // grid
    cut = features.reshape(batch, grid, step, grid, step, width).transpose(2, 3)
    return cut.reshape(batch, grid * grid, step * step, width)


def look_again(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """What each token reads from its window: [B, n, D].

    Parameters
    ----------
    query : float [B, n, D]. key, value : float [B, n, w, D], of each token's window.
    """
    q = query.unflatten(-1, (heads, -1))
    k, v = (x.unflatten(-1, (heads, -1)) for x in (key, value))
    weight = ((q.unsqueeze(2) * k).sum(-1) * q.shape[-1] ** -0.5).softmax(2)
    return (weight.unsqueeze(-1) * v).sum(2).flatten(2)


def look_again_work(tokens: int, window: int, heads: int, head_dim: int, layer: int = 0) -> tuple[Op, ...]:
    """The windows are gathered, and each token attends to its own: as many products as the whole map has features."""
    sizes = {"layer": layer, "heads": heads * tokens}
    return (
        Gather(layer=layer, rows=tokens * window, width=heads * head_dim, bits=16),
        QueryKey(**sizes, kv_heads=heads * tokens, queries=1, keys=window, head_dim=head_dim),
        Softmax(**sizes, rows=1, cols=window),
        ProbabilityValue(**sizes, kv_heads=heads * tokens, queries=1, keys=window, kept=window, head_dim=head_dim),
    )
