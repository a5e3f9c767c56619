"""Sparse VideoGen2's attention: queries and keys in clusters, each query cluster reads the key clusters that matter.

Specification `methods-vision`, section 11.1. One head at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Gather, Merge, Similarity, TopK

CONVERGED = 1e-4
SMALLEST_SUM = 1e-12


@dataclass(frozen=True)
class Clusters:
    """`labels` int64 [S], `centres` float [K, d], `sizes` int64 [K]."""

    labels: Tensor
    centres: Tensor
    sizes: Tensor


def first_centres(x: Tensor, clusters: int, draw: torch.Generator) -> Tensor:
    """float [clusters, d]: rows of x [S, d] drawn with replacement, from which a layer's first clustering starts."""
    return x[torch.randint(len(x), (clusters,), generator=draw)]


def k_means(x: Tensor, centres: Tensor, iterations: int) -> Clusters:
    """Clusters of x [S, d] from the first `centres` [K, d], one head alone; see `k_means_of_heads`."""
    (clusters,) = k_means_of_heads(x[None], centres[None], iterations)
    return clusters


def k_means_of_heads(x: Tensor, centres: Tensor, iterations: int) -> tuple[Clusters, ...]:
    """Clusters of each head of x [H, S, d] from the first `centres` [H, K, d].

    The nearest centre, of equally near ones the lowest; an empty cluster keeps its centre. Distances and means are
    float32 or wider, centres of the dtype of x. Where no centre of any head moves by 1e-4 or more, those that made the
    labels are returned; else the means of the labels. The first clustering of a layer takes 50 iterations, later ones, from
    the centres before, 2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    labels = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
    for _ in range(iterations):
        squares = (x**2).sum(-1, keepdim=True).to(wide) + (centres**2).sum(-1).to(wide).unsqueeze(1)
        labels = (squares - 2 * x.to(wide) @ centres.to(wide).transpose(1, 2)).clamp(min=0).argmin(-1)
        sizes = _sizes(labels, centres.shape[1])
        place = labels.unsqueeze(-1).expand(x.shape)
        sums = torch.zeros(centres.shape, dtype=wide, device=x.device).scatter_add(1, place, x.to(wide))
        means = (sums / sizes.clamp(min=1).unsqueeze(-1)).to(x.dtype)
        means = torch.where(sizes.unsqueeze(-1) > 0, means, centres)
        if float((means - centres).to(wide).norm(dim=-1).max()) < CONVERGED:
            break
        centres = means
    return tuple(Clusters(*head) for head in zip(labels, centres, _sizes(labels, centres.shape[1]), strict=True))


def _sizes(labels: Tensor, clusters: int) -> Tensor:
    """int64 [H, K]."""
    zeros = torch.zeros((len(labels), clusters), dtype=torch.int64, device=labels.device)
    return zeros.scatter_add(1, labels, torch.ones_like(labels))


def is_dense(layer: int, layers: int, step: int, steps: int, warm_up: float = 0.2) -> bool:
    """Whether `layer` attends densely in diffusion `step` (from 0): the first 3 % of the layers and, of the steps, the first
    share `warm_up` (0.2 for Wan, 0.1 for Hunyuan, 0.3 for Cosmos in the scripts)."""
    return layer < int(0.03 * layers) or step < int(warm_up * steps)


def cluster_map(query: Clusters, key: Clusters, mass: float = 0.9, least: float = 0.1) -> Tensor:
    """bool [Kq, Kk]: which key clusters each query cluster reads.

    By falling weight, size x exp(score of the centres), those until the weights before add up to more than `mass`, the
    crossing one included, and at least the first int(least x Kk); of equal weights the lowest index comes first.
    """
    score = query.centres @ key.centres.T * query.centres.shape[1] ** -0.5
    weight = key.sizes * (score - score.amax(1, keepdim=True)).float().exp()
    share = (weight / weight.sum(1, keepdim=True).clamp(min=SMALLEST_SUM)).to(score.dtype)
    order = share.sort(dim=1, descending=True, stable=True)
    # Sums in the dtype of the scores, as published: the sum up to the cluster before, not the sum less its own weight.
    before = torch.nn.functional.pad(order.values.cumsum(1)[:, :-1], (1, 0))
    kept = before <= mass
    kept[:, : max(int(least * score.shape[1]), 1)] = True
    return torch.zeros_like(kept).scatter(1, order.indices, kept)


def with_context(reads: Tensor) -> Tensor:
    """bool [Kq + 2, Kk + 2]: `reads` [Kq, Kk] with a video's prompt tokens and unused text tokens as two more clusters.

    Prompt and video read each other; the unused text reads, and is read by, itself alone.
    """
    queries, keys = reads.shape
    whole = torch.ones((queries + 2, keys + 2), dtype=torch.bool, device=reads.device)
    whole[:queries, :keys] = reads
    whole[-1] = whole[:, -1] = False
    whole[-1, -1] = True
    return whole


def clustered_attention(
    query: Tensor, key: Tensor, value: Tensor, of_query: Clusters, of_key: Clusters, reads: Tensor
) -> Tensor:
    """Attention of [S, d] cluster by cluster: tokens are brought together, attended in blocks, and put back."""
    to_query, to_key = (c.labels.argsort(stable=True) for c in (of_query, of_key))
    query, key, value = query[to_query], key[to_key], value[to_key]
    ends = of_query.sizes.cumsum(0).tolist()
    out = torch.empty_like(query)
    key_label = of_key.labels[to_key]
    for cluster, (end, size) in enumerate(zip(ends, of_query.sizes.tolist(), strict=True)):
        rows = slice(end - size, end)
        columns = reads[cluster][key_label]
        scores = query[rows] @ key[columns].T * query.shape[1] ** -0.5
        out[rows] = scores.softmax(-1) @ value[columns]
    back = torch.empty_like(out)
    back[to_query] = out
    return back


def density(of_query: Clusters, of_key: Clusters, reads: Tensor) -> float:
    """Share of the query-key pairs that are computed."""
    pairs = (reads * of_query.sizes.unsqueeze(1) * of_key.sizes).sum()
    return float(pairs) / (int(of_query.sizes.sum()) * int(of_key.sizes.sum()))


def clustering_work(
    tokens: int, query_clusters: int, key_clusters: int, head_dim: int, iterations: int, layer: int = 0
) -> tuple[Op, ...]:
    """Of one head: k-means of queries and keys, the map, and the tokens moved there and back."""
    once = []
    for clusters in (query_clusters, key_clusters):
        once += [
            Similarity(layer=layer, rows_a=tokens, rows_b=clusters, width=head_dim),
            ArgmaxRow(layer=layer, rows=tokens, cols=clusters),
            Merge(layer=layer, sources=tokens, targets=clusters, width=head_dim),
        ]
    return (
        *(op for _ in range(iterations) for op in once),
        Similarity(layer=layer, rows_a=query_clusters, rows_b=key_clusters, width=head_dim),
        TopK(layer=layer, n=key_clusters, k=key_clusters, scope=TopKScope.EDGE, repeats=query_clusters),
        Gather(layer=layer, rows=4 * tokens, width=head_dim, bits=16),
    )
