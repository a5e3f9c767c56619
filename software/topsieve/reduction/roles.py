"""The four roles a method composes: Schedule -> Scorer -> Selector -> Reducer, and what flows between them.

Source: specification `reduction-interface`, section 4.1. Shapes: B batch rows, H query heads, N padded tokens,
K slots after the reduction, d head dimension, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.reduction import Reduction
from topsieve_sim.trace import Op


class Site(StrEnum):
    """Where in the model a step acts."""

    MID_LAYER = "mid_layer"  # after attention, its residual (and LayerNorm in post-LN models), before the FFN
    LAYER = "layer"  # on the output of the layer
    HEAD = "head"  # on the attention heads of the following layers, see `Context`
    INPUT = "input"  # on the embeddings that enter the first layer
    OUTPUT = "output"  # on the output of an encoder, before any projector; its signals are those of `Step.layer`
    PROJECTED = "projected"  # between projector and language model; where there is no projector, as `OUTPUT`


class Tower(StrEnum):
    """The parts of a model of vision and language; a model of one part takes the steps of both."""

    VISION = "vision"
    LANGUAGE = "language"


class Signal(StrEnum):
    """What a scorer may ask the model for; each is computed only if asked.

    Padding never contributes: fully masked query rows are left out of every sum. Removed heads hold zeros.
    """

    ATTENTION_COLUMN_SUM = "attention_column_sum"  # float [B, H, N]: sums over the live query rows
    ATTENTION_DIAGONAL = "attention_diagonal"  # float [B, H, N]: probability of each token for itself
    ATTENTION_CLS_ROW = "attention_cls_row"  # float [B, H, N]: the row of query 0
    HEAD_ABSOLUTE_SUM = "head_absolute_sum"  # float [B, H]: absolute attention output over live rows and d
    KEY = "key"  # float [B, H, N, d]
    HIDDEN = "hidden"  # float [B, N, C]: what the reduction would move
    ATTENTION_LAST_ROW = "attention_last_row"  # float [B, H, N]: the row of the last live query
    ATTENTION_CLS_LOGITS = "attention_cls_logits"  # float [B, H, N]: scaled scores of query 0, before the softmax
    ATTENTION_JOINT_CLS_ROW = "attention_joint_cls_row"  # float [B, 1, N]: row of query 0, all heads taken as one
    QUERY = "query"  # float [B, H, N, d], as it enters attention (rotated where the model rotates)
    VALUE = "value"  # float [B, H, N, d]
    FEATURES = "features"  # float [B, N, C]: at `Site.PROJECTED`, what entered the projector
    UNIT = "unit"  # int64 [B, N]: unit of the text that each token belongs to; its own number where none were given
    FINAL_HIDDEN = "final_hidden"  # float [B, N, C]: the hidden states under the model's last normalisation
    # Of the next layer, float [B, H, N, d]: what its projections make of the hidden states, before and after rotation.
    NEXT_QUERY = "next_query"
    NEXT_KEY = "next_key"
    NEXT_ROTATED_QUERY = "next_rotated_query"
    NEXT_ROTATED_KEY = "next_rotated_key"


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a transformer that schedules and lowering need.

    Parameters
    ----------
    gated_ffn : the FFN has three maps instead of two.
    tower : which part of a model of vision and language this is; None for a model of one part.
    tail_layers : layers after the `layers` whose output is used; they run for their signals alone.
    class_token : token 0 stands for the whole sequence, also in what leaves an encoder.
    """

    name: str
    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    ffn_width: int
    gated_ffn: bool = False
    tower: Tower | None = None
    tail_layers: int = 0
    class_token: bool = True


@dataclass(frozen=True)
class Step:
    """One planned reduction."""

    site: Site
    layer: int
    budget: Budget


@runtime_checkable
class Schedule(Protocol):
    """Where and how much."""

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        """The steps on a model of `shape`, by ascending layer."""
        ...


@dataclass(frozen=True)
class Context:
    """What a step sees.

    At `Site.HEAD` the items are heads: N is H, `valid` [B, H] marks the live heads, `positions` are head numbers,
    `size` is 1 and `initial` is H. Heads do not move: a removed head keeps its place with `valid` False in later
    layers, so `state` stays [B, H] and is not gathered, and `keep` of the reduction holds head numbers.

    Parameters
    ----------
    shape : of the model. layer : index.
    valid : bool [B, N], live tokens; positions : int64 [B, N], original positions (-1 where not valid).
    size : float [B, N], how many input tokens each stands for.
    initial : int64 [B], live tokens the sequences started with.
    signals : the signals the scorer asked for.
    state : the scorer's own accumulated scores ([B, N] or [B, H]), already reduced like the tokens; None at first.
    seed : of random methods.
    segment : bool [B, N], the tokens that may be reduced, the visual ones among text; None where all may. Counts and
        shares of a budget, its protected tokens and `initial` speak of these; the others always stay.
    project : at `Site.PROJECTED`, the map float [..., C] to [..., D] that the features go through; None without one.
    """

    shape: ModelShape
    layer: int
    valid: Tensor
    positions: Tensor
    size: Tensor
    initial: Tensor
    signals: Mapping[Signal, Tensor]
    state: Tensor | None = None
    seed: int = 0
    segment: Tensor | None = None
    project: Callable[[Tensor], Tensor] | None = None

    @property
    def live(self) -> Tensor:
        """int64 [B]: live tokens a row."""
        return self.valid.sum(-1)

    @property
    def eligible(self) -> Tensor:
        """bool [B, N]: live tokens that may be reduced."""
        return self.valid if self.segment is None else self.valid & self.segment


@dataclass(frozen=True)
class Selection:
    """What a selector decided.

    Parameters
    ----------
    keep : int64 [B, K], kept ids in ascending order; padded rows carry -1 and `valid` False.
    valid : bool [B, K].
    assign : int64 [B, N], for merging methods: slot in `keep` that each removed token goes to, -1 for none (and for
        kept tokens).
    scores : float [B, N], what it decided by.
    """

    keep: Tensor
    valid: Tensor
    scores: Tensor
    assign: Tensor | None = None


class Scorer(Protocol):
    """How much each token (or head) matters."""

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals read by `score`."""
        ...

    def score(self, context: Context) -> Tensor:
        """float [B, N] (heads: [B, H]); larger is more important. Padding may hold anything."""
        ...

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        """Hardware operations for one sequence of `tokens` live tokens (of `Context.eligible`), beyond the attention taps."""
        ...


class Selector(Protocol):
    """Which stay."""

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        """Choose; ties go to the lowest index, survivors ascend."""
        ...

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        """Hardware operations for one sequence: `kept` of `tokens` live ones were chosen (`Reduction.kept`).

        With the step's `budget`, the tokens it protects are left out of the comparison: the operand of a `TopK` of
        scope token or head is then `Reduction.scores` of the live, unprotected items in order.
        """
        ...


class Reducer(Protocol):
    """What happens to those that do not stay."""

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        """The one result object."""
        ...

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        """Hardware operations for one sequence: `kept` of `tokens` live ones were chosen (`Reduction.kept`)."""
        ...


@dataclass(frozen=True)
class Stage:
    """One chain of roles; a method is a tuple of stages.

    Parameters
    ----------
    accumulates : the scorer's result becomes `Context.state` of its next step.
    tower : in a model of vision and language, which part it acts in.
    renumber : in a rotary language model, the tokens that stay take the first positions; else they keep their own.
    merges_signals : the signals of a merged token, for later steps in the same layer, are merged as its features are; else
        they are those of the token it stands at.
    depth_weighted : the scores are cumulative halting scores c; the model puts out, for every initial token, the sum
        over the layers of its hidden states weighted with what c grew by, at most 1 - c in all (A-ViT).
    """

    schedule: Schedule
    scorer: Scorer
    selector: Selector
    reducer: Reducer
    accumulates: bool = False
    tower: Tower = Tower.VISION
    renumber: bool = False
    merges_signals: bool = False
    depth_weighted: bool = False


@dataclass(frozen=True)
class BitPlan:
    """Quantisation of queries, keys and values; `lsb_bits` > 0 with a threshold is progressive (SpAtten III-D)."""

    query_bits: int = 12
    key_msb_bits: int = 8
    key_lsb_bits: int = 4
    value_bits: int = 12
    threshold: float = 0.1


@dataclass(frozen=True)
class AttentionPolicy:
    """What a method changes inside attention.

    Parameters
    ----------
    value_keep : share of the value rows each query of each head keeps, largest probabilities first (SpAtten III-C);
        1.0 keeps all. The kept probabilities are not renormalised. Counts are floor(keys x share), at least 1.
    size_bias : add log(token size) to the scores (ToMe's proportional attention).
    bits : quantise queries, keys and values; None computes in floating point.
    softmax_one : exp(x) / (1 + sum exp(x)) in place of the softmax, so a row may attend to nothing (MrT5's option).
    """

    value_keep: float = 1.0
    size_bias: bool = False
    bits: BitPlan | None = None
    softmax_one: bool = False


@runtime_checkable
class Method(Protocol):
    """A reduction method: a small frozen dataclass. `keep` is the share of tokens that live after the last step."""

    @property
    def name(self) -> str: ...

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        """The chains of roles on a model of `shape`."""
        ...

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        """The policy inside attention of `layer`."""
        ...


@dataclass(frozen=True)
class Decision:
    """One step that was taken, with its result and the live tokens before and after (synthetic slots included)."""

    step: Step
    stage: Stage
    reduction: Reduction
    tokens_in: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # int64 [B]
    tokens_out: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # int64 [B]
