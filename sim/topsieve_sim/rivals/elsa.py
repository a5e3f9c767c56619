"""ELSA (Ham et al., ISCA 2021): sign random projections pick the keys whose estimated similarity passes a threshold.

The sign bits of a random orthogonal projection estimate the angle between query and key by their Hamming distance; the
cosine of the angle, less a bias that keeps it from being overestimated, times the key's norm is compared with a
threshold learned for each layer. Candidates get exact attention. The projection is a Kronecker product of small
orthogonal matrices, so a hash costs d times the sum of their sizes instead of d^2 multiplications.

Source: specification `accelerator`, section 5.3; banks, selectors and hash width are from memory there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import load_technology
from topsieve_sim.rivals.heads import Floats, Head, HeadOperands
from topsieve_sim.rivals.machine import (
    Basis,
    Fetch,
    HeadCost,
    Rival,
    at_least_one,
    attended,
    key_cycles,
    probabilities,
    row_units,
    whole_operands,
)

# Hashes that a bank compares in a cycle.
SELECTORS = 8
NORM_BITS = 8
LARGEST_FACTOR = 4
# The angle is lowered by this quantile of its error, so that few similar keys are missed.
BIAS_QUANTILE, BIAS_DRAWS = 0.8, 4096


def kronecker_factors(head_dim: int) -> tuple[int, ...]:
    """Sizes of the small matrices whose product is `head_dim`: as many of 4 as divide it, then primes."""
    factors, rest = [], head_dim
    for size in (LARGEST_FACTOR, 2, 3, *range(5, head_dim + 1, 2)):
        while rest % size == 0:
            factors.append(size)
            rest //= size
    return tuple(factors) or (1,)


def hash_macs(head_dim: int) -> int:
    """Multiply-accumulates of one hash."""
    return head_dim * sum(kronecker_factors(head_dim))


@lru_cache(maxsize=16)
def projection(head_dim: int, seed: int) -> Floats:
    """Orthogonal matrix float64 [d, d], the Kronecker product of drawn ones."""
    generator = np.random.default_rng(seed)
    small = [np.linalg.qr(generator.standard_normal((size, size)))[0] for size in kronecker_factors(head_dim)]
    return np.asarray(reduce(np.kron, small))


def sign_bits(vectors: NDArray[np.generic], matrix: Floats) -> Floats:
    """Hashes as float64 [vectors, d] of +1 and -1."""
    return np.where(np.asarray(vectors, np.float64) @ matrix.T >= 0, 1.0, -1.0)


def estimated_angles(query_bits: Floats, key_bits: Floats) -> Floats:
    """Angles in radians from Hamming distances: float64 [rows, keys]."""
    width = query_bits.shape[1]
    hamming = (width - query_bits @ key_bits.T) / 2
    return np.asarray(math.pi / width * hamming)


@lru_cache(maxsize=16)
def angle_bias(head_dim: int, seed: int) -> float:
    """The quantile of the estimated less the true angle over drawn pairs."""
    matrix = projection(head_dim, seed)
    first, second = np.random.default_rng(seed + 1).standard_normal((2, BIAS_DRAWS, head_dim))
    products = (first * second).sum(axis=1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    agreed = (sign_bits(first, matrix) * sign_bits(second, matrix)).sum(axis=1)
    estimated = math.pi / head_dim * (head_dim - agreed) / 2
    return float(np.quantile(estimated - np.arccos(np.clip(products / norms, -1, 1)), BIAS_QUANTILE))


class Elsa(Rival):
    """ELSA; `degree` p learns the threshold from the keys with at least p times the mean probability."""

    name: ClassVar[str] = "elsa"
    title: ClassVar[str] = "ELSA (ISCA 2021)"
    basis: ClassVar[Basis] = Basis.ANALYTICAL
    source: ClassVar[str] = "specification `accelerator`, section 5.3"

    degree: float = Field(1.0, ge=0, le=64, description="degree of approximation p; 0 scores every key")
    seed: int = Field(0, ge=0, description="of the projection")

    def notes(self) -> tuple[str, ...]:
        return (
            f"{self.label}: thresholds are learned on the trace itself, which flatters them; hashes run on the "
            "dot-product array, older keys bring theirs from DRAM",
        )

    def learned(self, heads: Iterable[Head]) -> float:
        """Threshold of a layer: the mean over rows of the smallest similarity that had to be kept, over the largest norm."""
        if not self.degree:
            return -math.inf
        smallest: list[Floats] = []
        for head in heads:
            if head.operands is None:
                continue
            numbers = head.operands
            probability = probabilities(numbers.scores, head.visible)
            # The largest of a row always counts, whatever the degree.
            wanted = np.minimum(self.degree / head.row_keys[:, None], probability.max(axis=1, keepdims=True))
            norms = np.linalg.norm(numbers.query, axis=1, keepdims=True)
            largest = max(float(np.linalg.norm(numbers.key, axis=1).max()), 1.0)
            cosines = numbers.query @ numbers.key.T / np.maximum(norms, 1.0) / largest
            smallest.append(np.where((probability >= wanted) & head.visible, cosines, np.inf).min(axis=1))
        return float(np.concatenate(smallest).mean()) if smallest else -math.inf

    def candidates(self, head: Head, operands: HeadOperands, threshold: float) -> NDArray[np.bool_]:
        """Bool [rows, keys]: keys whose estimated similarity reaches `threshold` times the largest norm of the head."""
        matrix = projection(head.head_dim, self.seed)
        angles = estimated_angles(sign_bits(operands.query, matrix), sign_bits(operands.key, matrix))
        norms = np.linalg.norm(operands.key, axis=1)
        cosines = np.cos(np.maximum(angles - angle_bias(head.head_dim, self.seed), 0.0))
        similarity = np.where(head.visible, cosines * norms, -np.inf)
        kept = (similarity >= threshold * max(float(norms.max()), 1.0)) & head.visible
        return at_least_one(kept, similarity)

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        assert head.operands is not None
        kept = self.candidates(head, head.operands, learned)
        banks, per_key = row_units(head.head_dim, config), key_cycles(head.head_dim, config)
        hashing = -(-hash_macs(head.head_dim) // config.dot_product.multipliers)
        spread = np.zeros((head.rows, -(-head.keys // banks) * banks), np.bool_)
        spread[:, : head.keys] = kept
        fullest = spread.reshape(head.rows, -1, banks).sum(axis=1).max(axis=1)
        scan = -(-head.row_keys // (banks * SELECTORS))
        # The query's hash takes the dot-product array too, so it adds to the candidates of the fullest bank.
        interval = np.maximum(scan, fullest * per_key + hashing)
        older = head.keys - head.new_keys
        count = int(kept.sum())
        hashed = head.new_keys + head.rows
        fetch = whole_operands(head)
        if older:
            fetch[Fetch.INDEX] = older * (head.head_dim + NORM_BITS)
        return HeadCost(
            job_cycles=np.asarray(interval, np.int64),
            tail_cycles=int(scan[-1] + 2 * fullest[-1] * per_key),
            fetch_bits=fetch,
            scores=count,
            score_macs=count * head.head_dim,
            weighted=count,
            value_macs=count * head.head_dim,
            before_cycles=head.new_keys * hashing,
            extra_pj={
                "hash": self._hash_pj(hashed, head.head_dim, config),
                "selection": self._selection_pj(head.scores_seen, head.head_dim, config),
            },
            output=attended(head.operands, kept),
        )

    def _hash_pj(self, hashes: int, head_dim: int, config: AcceleratorConfig) -> float:
        table, formats = load_technology(config.technology), config.formats
        multiply = table.value("multiplier", "multiply", formats.query_bits, formats.key_bits)
        return (
            hashes * hash_macs(head_dim) * (multiply + table.value("adder", "add", formats.dot_product_bits(head_dim)))
        )

    def _selection_pj(self, comparisons: int, head_dim: int, config: AcceleratorConfig) -> float:
        """A hash and a norm are read, the differing bits added up, the norm multiplied by a cosine, the result compared."""
        table = load_technology(config.technology)
        bits = head_dim + NORM_BITS
        return comparisons * (
            table.value("sram", "read", 1) * bits
            + table.value("adder", "add", head_dim)
            + table.value("multiplier", "multiply", NORM_BITS, NORM_BITS)
            + table.value("comparator", "compare", 2 * NORM_BITS)
        )
