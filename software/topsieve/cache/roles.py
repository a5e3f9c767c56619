"""The roles of a cache method: what is observed, when it decides, what it returns.

They are the four roles of `topsieve.reduction` at another scope. The items are the slots of the cache, the rows are the
key-value heads of each sequence: R = B x KV rows of N slots, row b x KV + h for head h of sequence b. A `Reduction` of
scope "kv_head" holds the kept slots and, per role "k" and "v", the merges.

Shapes: B sequences, KV key-value heads, G query heads a key-value head, N slots, Q queries of this forward pass.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from topsieve.cache.budget import CacheBudget
from topsieve.cache.layer_budget import LayerBudget
from topsieve.cache.rotary import Rotary
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import AttentionPolicy, Context, ModelShape, Selection, Stage
from topsieve_sim.trace import Op


class Moment(StrEnum):
    """When a stage may decide. A forward pass runs the prompt (pass 0) or what is appended later, one token in decoding."""

    PROMPT = "prompt"  # once, after the prompt
    PASS = "pass"  # after every pass
    DECODE = "decode"  # after every pass but the prompt's


@dataclass(frozen=True)
class CacheStep:
    """One planned decision point: after attention of `layer`, on the passes of `moment`, every `every` of them."""

    layer: int
    budget: CacheBudget
    moment: Moment = Moment.PASS
    every: int = 1

    def due(self, number: int) -> bool:
        """Whether pass `number` is one of them; the prompt is number 0."""
        if self.moment is Moment.PROMPT:
            return number == 0
        if number == 0:
            return self.moment is Moment.PASS
        return number % self.every == 0


@dataclass(frozen=True)
class Taps:
    """What is read off the probabilities while attention runs.

    Parameters
    ----------
    column_sum : sums over the live queries of this pass.
    window : rows of the last `window` queries of this pass, 0 for none.
    head_sum : absolute sums of the head outputs.
    """

    column_sum: bool = False
    window: int = 0
    head_sum: bool = False

    def __or__(self, other: Taps) -> Taps:
        return Taps(
            self.column_sum or other.column_sum, max(self.window, other.window), self.head_sum or other.head_sum
        )


@dataclass(frozen=True)
class CacheContext(Context):
    """What a cache stage sees: the fields of `Context` over R rows of N slots, and the tensors of the layer.

    `valid` bool [R, N], live slots; `positions` int64 [R, N], positions in the sequence (counted without padding), -1
    where not valid; `size` float [R, N]; `initial` int64 [R], tokens of the prompt; `state` the scorer's own, float
    [R, N, ...], newest slots last and 0 where nothing was observed yet.

    Parameters
    ----------
    number : of the pass; 0 is the prompt.
    key, value : float [R, N, d], as stored.
    query : float [R, G, Q, d], of this pass, as attention took it.
    query_positions : int64 [R, Q], -1 for padding.
    column_sum : float [R, G, N], or None if not tapped.
    window : float [R, G, w, N], the last w = min(window, Q) query rows, zeros for padding; or None.
    rotary : how keys and queries were rotated; None where positions are learned.
    scaling : of the attention scores.
    memory : what the stage keeps for this layer beside slot states, float [R, ...] by name; may be written.
    """

    number: int = 0
    key: Tensor = field(default_factory=lambda: torch.empty(0))
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    query: Tensor = field(default_factory=lambda: torch.empty(0))
    query_positions: Tensor = field(default_factory=lambda: torch.empty(0))
    column_sum: Tensor | None = None
    window: Tensor | None = None
    rotary: Rotary | None = None
    scaling: float = 1.0
    memory: MutableMapping[str, Tensor] = field(default_factory=dict)

    @property
    def live_queries(self) -> Tensor:
        """bool [R, Q]."""
        return self.query_positions >= 0


class CacheScorer(Protocol):
    """How much each slot matters."""

    @property
    def taps(self) -> Taps:
        """What attention must hand over, on every pass."""
        ...

    def observe(self, context: CacheContext) -> Tensor | None:
        """The state after this pass, float [R, N, ...]; None where the scorer has none."""
        ...

    def score(self, context: CacheContext) -> Tensor:
        """float [R, N]; larger is more important. `context.state` has seen this pass."""
        ...

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        """Hardware operations of one decision for all heads of one sequence, beyond the taps."""
        ...


class CacheSelector(Protocol):
    """Which stay."""

    def select(self, scores: Tensor, budget: CacheBudget, context: CacheContext) -> Selection:
        """Choose; ties go to the lowest index, survivors ascend."""
        ...

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int, fixed: int) -> tuple[Op, ...]:
        """Hardware operations for all heads of one sequence; `fixed` slots of a head were not compared."""
        ...


class CacheReducer(Protocol):
    """What happens to those that do not stay."""

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        """The one result object."""
        ...

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        """Hardware operations for all heads of one sequence."""
        ...


class CacheSchedule(Protocol):
    """Where, when and how much."""

    def plan(self, shape: ModelShape) -> tuple[CacheStep, ...]:
        """The decision points on a model of `shape`, at most one a layer."""
        ...


@dataclass(frozen=True)
class CacheStage:
    """One chain of roles on the cache.

    Parameters
    ----------
    shared : all heads of a sequence take the same decision, so it is made (and paid) once.
    """

    schedule: CacheSchedule
    scorer: CacheScorer
    selector: CacheSelector
    reducer: CacheReducer
    shared: bool = False


class CacheReader(Protocol):
    """Which of the live slots each query reads; nothing is removed.

    `CacheContext.memory` is one for all layers, float [R, ...] by name, and goes on from pass to pass. `slots` of its work
    are those of the image where the passes go on behind a prompt with one.
    """

    def chosen(self, context: CacheContext) -> Tensor | None:
        """bool [R, G, Q, N], slots to read among the live ones; None reads all."""
        ...

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        """Hardware operations for all heads of one sequence."""
        ...


class ChannelPruner(Protocol):
    """Removes channels of stored keys."""

    def prune(self, context: CacheContext) -> tuple[Reduction, int] | None:
        """The kept channels (a `Reduction` of axis "channel", R rows of d) and how many of the newest slots stay whole."""
        ...

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        """Hardware operations for all heads of one sequence."""
        ...


@dataclass(frozen=True)
class Cascade:
    """Pruning that runs from layer to layer within a pass, as SpAtten does it: the stages of an encoder's layers.

    Parameters
    ----------
    stages : token and head stages of `topsieve.reduction`; their scorers see column sums and head sums.
    """

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class CachePolicy:
    """What a method does to a decoder and its cache.

    Parameters
    ----------
    stages : evictions and merges.
    reader : slots that are read.
    channels : key channels that are stored.
    cascade : tokens and heads that later layers do not see.
    attention : what changes inside attention.
    layers : which layers run at which position.
    cache_positions : rotary models only: keys and queries turn to their place in the cache instead of their original
        position.
    """

    stages: tuple[CacheStage, ...] = ()
    reader: CacheReader | None = None
    channels: ChannelPruner | None = None
    cascade: Cascade | None = None
    layers: LayerBudget | None = None
    attention: AttentionPolicy = field(default_factory=AttentionPolicy)
    cache_positions: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing at all is changed."""
        return self == CachePolicy()


@runtime_checkable
class CacheMethod(Protocol):
    """A method that acts on decoders."""

    @property
    def name(self) -> str: ...

    def cache(self, shape: ModelShape) -> CachePolicy:
        """What it does on a model of `shape`."""
        ...


@runtime_checkable
class DecodingMethod(Protocol):
    """A method of the layers that has something to say of the passes behind a prompt that it reduced."""

    def decoding(self, shape: ModelShape) -> CachePolicy:
        """What it does in them on a language model of `shape`: a reader, nothing else."""
        ...


class CacheOnly:
    """Base of methods that act on the cache of decoders and on nothing else."""

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        return ()

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()
