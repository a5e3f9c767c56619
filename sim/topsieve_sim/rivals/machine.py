"""What a rival is: a frozen object whose fields are its knobs, and one method that computes function and cost together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.rivals.heads import Floats, Head, HeadOperands


class Basis(StrEnum):
    """How far a machine's cycles can be trusted."""

    CYCLE_EXACT = "cycle-exact"
    """Equal to a clock-by-clock reference or to another simulator, cycle for cycle, up to the ideal memory."""
    ANALYTICAL = "analytical"
    """Throughputs and latencies as published, on the real counts of the trace's data."""
    BOUND = "analytical bound"
    """What no execution can beat; a real run is slower."""


class Fetch(StrEnum):
    """What a rival reads besides queries."""

    KEY = "key"
    VALUE = "value"
    INDEX = "index"


@dataclass(frozen=True)
class HeadCost:
    """One key-value head on a rival.

    job_cycles : int64 [jobs], cycles in which a job (a query row, or the whole head) occupies its unit.
    tail_cycles : latency of a job beyond that. before_cycles : preparation of the head. wait_cycles : memory cycles that
        nothing could fill.
    fetch_bits : bits read from DRAM by kind, queries left out.
    scores : scores computed in full. score_macs, value_macs : multiply-accumulates of both products.
    weighted : value rows that entered a sum. key_reads, value_reads : elements read from the buffers; None is one a
    multiply-accumulate, as in a machine that works on one query at a time. extra_pj : energy of parts that the accelerator does not have, by name.
    output : float64 [rows, d], None without operands.
    """

    job_cycles: NDArray[np.int64]
    tail_cycles: int
    fetch_bits: Mapping[Fetch, int]
    scores: int
    score_macs: int
    weighted: int
    value_macs: int
    key_reads: int | None = None
    value_reads: int | None = None
    before_cycles: int = 0
    wait_cycles: int = 0
    extra_pj: Mapping[str, float] = field(default_factory=dict)
    output: Floats | None = None


class Rival(BaseModel, ABC):
    """A machine with the multipliers, the bandwidth, the clock and the number formats of an `AcceleratorConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    title: ClassVar[str]
    basis: ClassVar[Basis]
    source: ClassVar[str]

    @property
    def label(self) -> str:
        """The name with every knob that is not at its default, as `build` reads it."""
        changed = self.model_dump(mode="json", exclude_defaults=True)
        settings = (
            f"{knob}={value:g}" if type(value) is float else f"{knob}={value}" for knob, value in changed.items()
        )
        return self.name + (":" if changed else "") + ",".join(settings)

    @property
    def needs_operands(self) -> bool:
        """Whether its cost depends on data."""
        return True

    def units(self, head_dim: int, config: AcceleratorConfig) -> int:
        """Units that take jobs in turn."""
        return 1

    def learned(self, heads: Iterable[Head]) -> float:
        """What the machine learns beforehand of all heads of one layer; 0 where it learns nothing."""
        return 0.0

    @abstractmethod
    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        """Function and cost of one key-value head."""

    def notes(self) -> tuple[str, ...]:
        """Assumptions behind its numbers."""
        return ()


def whole_operands(head: Head) -> dict[Fetch, int]:
    """Every key and value once."""
    elements = head.keys * head.head_dim
    return {Fetch.KEY: elements * head.key_bits, Fetch.VALUE: elements * head.value_bits}


def probabilities(scores: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Softmax of each row over its `kept` keys (at least one); 0 elsewhere."""
    masked = np.where(kept, scores, -np.inf)
    weights = np.exp(masked - masked.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def attended(operands: HeadOperands, kept: NDArray[np.bool_]) -> Floats:
    """Attention of each row over its `kept` keys: float64 [rows, d]."""
    return np.asarray(probabilities(operands.scores, kept) @ operands.value)


def at_least_one(kept: NDArray[np.bool_], estimate: NDArray[np.generic]) -> NDArray[np.bool_]:
    """`kept`, and in rows that keep nothing the first key with the largest `estimate`."""
    empty = ~kept.any(axis=1)
    result = kept.copy()
    result[empty, np.argmax(estimate[empty], axis=1)] = True
    return result


def padded_dim(head_dim: int, config: AcceleratorConfig) -> int:
    """Multipliers that a key occupies."""
    split = config.dot_product.lane_split
    return -(-head_dim // split) * split


def row_units(head_dim: int, config: AcceleratorConfig) -> int:
    """How many units of one key a cycle both arrays hold; 1 where a key takes several cycles."""
    return max(1, min(config.dot_product.multipliers, config.weighted_sum.multipliers) // padded_dim(head_dim, config))


def key_cycles(head_dim: int, config: AcceleratorConfig) -> int:
    """Cycles that one key takes on one of the `row_units`."""
    return -(-padded_dim(head_dim, config) // min(config.dot_product.multipliers, config.weighted_sum.multipliers))
