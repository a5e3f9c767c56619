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


def k_means(x: Tensor, centres: Tensor, iterations: int) -> Clusters:
    """Clusters of x [S, d] from the first `centres` [K, d].

    The nearest centre, of equally near ones the lowest; an empty cluster keeps its centre. Where the centres move by less
    than 1e-4, those that made the labels are returned; else the means of the labels.
    """
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for _ in range(iterations):
        distance = (x**2).sum(1, keepdim=True) + (centres**2).sum(1) - 2 * x @ centres.T
        labels = distance.clamp(min=0).argmin(1)
        sizes = torch.bincount(labels, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add(0, labels, x)
        means = torch.where(sizes.unsqueeze(1) > 0, sums / sizes.clamp(min=1).unsqueeze(1), centres)
        if float((means - centres).norm(dim=1).max()) < CONVERGED:
            break
        centres = means
    return Clusters(labels, centres, torch.bincount(labels, minlength=len(centres)))


def cluster_map(query: Clusters, key: Clusters, mass: float = 0.9, least: float = 0.1) -> Tensor:
    """bool [Kq, Kk]: which key clusters each query cluster reads.

    By falling weight, size x exp(score of the centres), those until the weights before add up to more than `mass`, the
    crossing one included, and at least the first int(least x Kk); of equal weights the lowest index comes first.
    """
    score = query.centres @ key.centres.T * query.centres.shape[1] ** -0.5
    weight = key.sizes * (score - score.amax(1, keepdim=True)).float().exp()
    share = (weight / weight.sum(1, keepdim=True).clamp(min=SMALLEST_SUM)).to(score.dtype)
    order = share.sort(dim=1, descending=True, stable=True)
    before = order.values.cumsum(1) - order.values
    kept = before <= mass
    kept[:, : max(int(least * score.shape[1]), 1)] = True
    return torch.zeros_like(kept).scatter(1, order.indices, kept)


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
