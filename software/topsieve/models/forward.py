"""One forward pass under a method: which tokens and heads live, the scorers' states, and the record it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from topsieve.methods import spell
from topsieve.models.attention import attend, class_scores, expanded
from topsieve.record import BoundaryRecord, LayerRecord, Record
from topsieve.reduction.deciding import decide
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import (
    AttentionPolicy,
    Context,
    Decision,
    Method,
    ModelShape,
    Signal,
    Site,
    Stage,
    Step,
)

# Signals that the model's own attention kernel can stay for.
OPERAND_SIGNALS = frozenset({Signal.QUERY, Signal.KEY, Signal.VALUE})
CLASS_SIGNALS = frozenset({Signal.ATTENTION_CLS_LOGITS, Signal.ATTENTION_JOINT_CLS_ROW})
# Signals that a layer's attention does not make.
HIDDEN_SIGNALS = frozenset({Signal.HIDDEN, Signal.FEATURES, Signal.UNIT})
PROBED_SIGNALS = frozenset(
    {
        Signal.FINAL_HIDDEN,
        Signal.NEXT_QUERY,
        Signal.NEXT_KEY,
        Signal.NEXT_ROTATED_QUERY,
        Signal.NEXT_ROTATED_KEY,
    }
)
KERNEL_SIGNALS = OPERAND_SIGNALS | CLASS_SIGNALS | HIDDEN_SIGNALS | PROBED_SIGNALS
BOUNDARIES = (Site.INPUT, Site.OUTPUT, Site.PROJECTED)

# The model's own attention: query, key, value, a bool mask [B, N] of live tokens (None: the mask the model made) and the
# position bias of these, where there is one.
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]

# What the next layer or the last normalisation would make of the hidden states: (signal, layer, hidden [B, N, C],
# position ids [B, N]).
Probe = Callable[[Signal, int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """A method laid out on a model: its stages, and its steps in the order they are taken.

    A layer's steps are pairs (index of the stage, step); the layers of the tail take none.
    """

    shape: ModelShape
    method: Method
    stages: tuple[Stage, ...]
    steps: tuple[tuple[tuple[int, Step], ...], ...]
    boundary_steps: tuple[tuple[int, Step], ...] = ()

    @classmethod
    def of(cls, method: Method, shape: ModelShape) -> Plan:
        """Ask `method` for its stages and their steps on a model of `shape`."""
        stages = tuple(stage for stage in method.stages(shape) if shape.tower in (None, stage.tower))
        planned = [(index, step) for index, stage in enumerate(stages) for step in stage.schedule.plan(shape)]
        layers = range(shape.layers + shape.tail_layers)
        inside = [item for item in planned if item[1].site not in BOUNDARIES and item[1].layer < shape.layers]
        return cls(
            shape,
            method,
            stages,
            tuple(tuple(item for item in inside if item[1].layer == layer) for layer in layers),
            tuple(item for item in planned if item[1].site in BOUNDARIES),
        )

    def needs(self, layer: int) -> frozenset[Signal]:
        """Signals that the scorers of `layer` read, and those of the boundaries that look at `layer`."""
        wanted = [self.stages[index].scorer.needs for index, _ in self.steps[layer]]
        return frozenset().union(*wanted, self.kept_needs(layer))

    def kept_needs(self, layer: int) -> frozenset[Signal]:
        """Signals of `layer` that steps after the last layer read."""
        wanted = (self.stages[i].scorer.needs for i, step in self.boundary_steps if step.layer == layer)
        return frozenset().union(*wanted) - HIDDEN_SIGNALS - PROBED_SIGNALS

    @property
    def layers_run(self) -> int:
        """Layers whose output or signals are used."""
        looked_at = [step.layer + 1 for _, step in self.boundary_steps]
        return max(self.shape.layers, *looked_at) if looked_at else self.shape.layers


@dataclass
class _Layer:
    """What is known of the running layer; becomes a `LayerRecord`."""

    policy: AttentionPolicy
    tokens: Tensor
    padded: int
    heads: Tensor
    positions: Tensor
    signals: dict[Signal, Tensor] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    decided_among: list[Tensor] = field(default_factory=list)
    ffn_tokens: Tensor | None = None
    ffn_padded: int = 0
    lsb_rows: Tensor | None = None
    operands: dict[str, Tensor] = field(default_factory=dict)


class ForwardPass:
    """State of one forward pass over a batch.

    Parameters
    ----------
    plan : the method on this model.
    valid : bool [B, N], live tokens of the batch.
    seed : of random methods.
    keep_operands : keep query, key and value of every layer in the record.
    positions : int64 [B, N], columns of the input batch where the tokens come from; the place in `valid` where absent.
    position_ids : int64 [B, N], of a rotary model; None for others.
    segment : bool [B, N], tokens that may be reduced; None where all may.
    units : int64 [B, columns of the input], units of the text; None where nothing is known of them.
    causal : attention is causal.
    probe : makes the signals that the model has to be asked for.
    """

    def __init__(
        self,
        plan: Plan,
        valid: Tensor,
        *,
        seed: int,
        keep_operands: bool,
        positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment: Tensor | None = None,
        units: Tensor | None = None,
        causal: bool = False,
        probe: Probe | None = None,
    ) -> None:
        self._plan = plan
        self._seed = seed
        self._keep_operands = keep_operands
        self._causal = causal
        self._probe = probe
        self._layers: list[_Layer] = []
        self._boundaries: dict[Site, _Layer] = {}
        self._states: dict[int, Tensor] = {}
        self._kept_signals: dict[int, dict[Signal, Tensor]] = {}
        self._reduced = False
        self._first_valid = valid
        here = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
        self._place = here.masked_fill(~valid, -1)  # int64 [B, N]: rows of the tensor that entered the first layer
        self._halted_sum: Tensor | None = None
        self.valid = valid
        self.positions = self._place if positions is None else positions
        self.position_ids = position_ids
        self.segment = segment
        self._units = units
        self._initial = (valid if segment is None else valid & segment).sum(-1)
        self.size = valid.to(torch.float32)
        self.heads = torch.ones((valid.shape[0], plan.shape.heads), dtype=torch.bool, device=valid.device)

    @property
    def initial(self) -> Tensor:
        """int64 [B]: tokens that could be reduced when the pass began."""
        return self._initial

    @property
    def tokens(self) -> int:
        """Tokens of a row when the pass began, without a first row that the model has left out since."""
        return self._first_valid.shape[1]

    @property
    def reduced(self) -> bool:
        """Whether any step was taken: masks and positions are then no longer the model's."""
        return self._reduced

    @property
    def places(self) -> Tensor:
        """int64 [B, N]: rows of the tensor that entered the first layer; -1 for padding and tokens that a method made."""
        return self._place

    @property
    def layers_done(self) -> int:
        """Layers whose attention has run."""
        return len(self._layers)

    def attention(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kernel: Kernel,
        *,
        scaling: float,
        dropout: float,
        position_bias: Tensor | None = None,
    ) -> Tensor:
        """Attention of `layer` on [B, H, N, d]: [B, N, H, d]. The model's own kernel works where nothing else is asked.

        `position_bias` float [1, H, M, M] speaks of the M tokens that entered the first layer.
        """
        if position_bias is not None and self._reduced:
            position_bias = self._moved_bias(position_bias)
        policy = self._plan.method.attention(self._plan.shape, layer)
        needs = self._plan.needs(layer)
        running = _Layer(policy, self.valid.sum(-1), self.valid.shape[1], self.heads, self.positions)
        self._layers.append(running)
        if self._keep_operands:
            running.operands = {
                "query": query.detach(),
                "key": key.detach(),
                "value": value.detach(),
                "valid": self.valid,
                "size": self.size,
            }
        if policy == AttentionPolicy() and needs <= KERNEL_SIGNALS and bool(self.heads.all()):
            operands = {Signal.QUERY: query, Signal.KEY: key, Signal.VALUE: value}
            for signal in sorted(needs & OPERAND_SIGNALS):
                running.signals[signal] = expanded(operands[signal], query.shape[1])
            every_key = expanded(key, query.shape[1])
            running.signals |= class_scores(query, every_key, self.valid, scaling, needs, position_bias)
            return kernel(query, key, value, self.valid if self._reduced else None, position_bias)
        attended = attend(
            query,
            key,
            value,
            valid=self.valid,
            heads=self.heads,
            size=self.size,
            scaling=scaling,
            policy=policy,
            needs=needs,
            dropout=dropout,
            causal=self._causal,
            position_bias=position_bias,
        )
        running.signals.update(attended.signals)
        running.lsb_rows = attended.lsb_rows
        return attended.output

    def _moved_bias(self, position_bias: Tensor) -> Tensor:
        """float [B, H, N, N]: the bias between the places where the slots stand; 0 where one has no place of its own."""
        place = self._place.clamp(min=0)
        rows = position_bias[0][:, place].transpose(0, 1)  # [B, H, N, M]
        moved = rows.gather(3, place[:, None, None, :].expand(*rows.shape[:3], place.shape[1]))
        nowhere = self._place < 0
        return moved.masked_fill(nowhere[:, None, :, None] | nowhere[:, None, None, :], 0)

    def before_ffn(self, hidden: Tensor) -> Tensor:
        """Take the steps between attention and FFN on `hidden` [B, N, C]."""
        hidden = self._take(hidden, {Site.MID_LAYER, Site.HEAD})
        self._layers[-1].ffn_tokens = self.valid.sum(-1)
        self._layers[-1].ffn_padded = self.valid.shape[1]
        return hidden

    def after_layer(self, hidden: Tensor) -> Tensor:
        """Take the steps on the output of the layer."""
        layer = len(self._layers) - 1
        hidden = self._take(hidden, {Site.LAYER})
        kept = self._plan.kept_needs(layer)
        self._kept_signals[layer] = {name: x for name, x in self._layers[-1].signals.items() if name in kept}
        self._layers[-1].signals = dict.fromkeys(
            self._layers[-1].signals, torch.empty(0)
        )  # only the names are recorded
        if layer == self._plan.shape.layers - 1 and self._halted_sum is not None:
            hidden = self._depth_weighted_output(hidden)
        return hidden

    def at_boundary(
        self,
        site: Site,
        hidden: Tensor,
        *,
        features: Tensor | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
        without_first: bool = False,
    ) -> Tensor:
        """Take the steps before the first or after the last layer, on `hidden` [B, N, C].

        Parameters
        ----------
        features : at `Site.PROJECTED`, float [B, N, C] that entered the projector; `hidden` itself where absent.
        project : at `Site.PROJECTED`, the projector.
        without_first : the model left out the first row, its class token, since the last layer.
        """
        if without_first:
            self._leave_out_first()
        steps = [item for item in self._plan.boundary_steps if item[1].site is site]
        if not steps:
            return hidden
        running = _Layer(AttentionPolicy(), self.valid.sum(-1), self.valid.shape[1], self.heads, self.positions)
        self._boundaries[site] = running
        for index, step in steps:
            given = dict(self._kept_signals.get(step.layer, {}))
            given[Signal.FEATURES] = hidden if features is None else features
            before = self.valid.shape[1]
            hidden, decision = self._take_one(index, step, hidden, given, project)
            if features is not None and before:
                features = decision.reduction.apply(features)
            running.decisions.append(decision)
        return hidden

    def moved_to_end(self, hidden: Tensor) -> Tensor:
        """The last hidden states [B, N, C] with padding first, so that every sequence ends in the last row."""
        order = self.valid.to(torch.int8).sort(dim=-1, stable=True).indices
        self.valid, self.positions, self.size, self._place = (
            x.gather(1, order) for x in (self.valid, self.positions, self.size, self._place)
        )
        return hidden.gather(1, order.unsqueeze(-1).expand(hidden.shape))

    def record(self) -> Record:
        """What happened."""
        layers = []
        for index, layer in enumerate(self._layers):
            assert layer.ffn_tokens is not None
            layers.append(
                LayerRecord(
                    layer=index,
                    attention_tokens=layer.tokens,
                    attention_padded=layer.padded,
                    ffn_tokens=layer.ffn_tokens,
                    ffn_padded=layer.ffn_padded,
                    heads=layer.heads,
                    positions=layer.positions,
                    policy=layer.policy,
                    signals=self._plan.needs(index),
                    decisions=tuple(layer.decisions),
                    decided_among=tuple(layer.decided_among),
                    lsb_rows=layer.lsb_rows,
                    **layer.operands,
                )
            )
        boundaries = tuple(
            BoundaryRecord(site, tuple(taken.decisions), tuple(taken.decided_among))
            for site, taken in self._boundaries.items()
        )
        return Record(
            self._plan.shape,
            spell(self._plan.method),
            tuple(layers),
            boundaries=boundaries,
            layers_run=self._plan.layers_run,
            causal=self._causal,
        )

    def _take(self, hidden: Tensor, sites: set[Site]) -> Tensor:
        running = self._layers[-1]
        for index, step in self._plan.steps[len(self._layers) - 1]:
            if step.site in sites:
                hidden, decision = self._take_one(index, step, hidden, running.signals)
                running.decisions.append(decision)
        return hidden

    def _take_one(
        self,
        index: int,
        step: Step,
        hidden: Tensor,
        signals: Mapping[Signal, Tensor],
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Decision]:
        """One step; leaves the tokens it chose among in the record of its place."""
        stage = self._plan.stages[index]
        context = self._context(index, step, hidden, signals, project)
        decision = decide(stage, step, context)
        place = self._boundaries[step.site] if step.site in BOUNDARIES else self._layers[-1]
        place.decided_among.append(context.eligible)
        if stage.depth_weighted:
            self._add_weighted(hidden, decision.reduction.scores, context.state)
        if stage.accumulates:
            self._states[index] = decision.reduction.scores
        if step.site is Site.HEAD:
            self._drop_heads(decision.reduction)
        else:
            hidden = self._reduce_tokens(decision.reduction, hidden, stage)
        return hidden, decision

    def _context(
        self,
        index: int,
        step: Step,
        hidden: Tensor,
        given: Mapping[Signal, Tensor],
        project: Callable[[Tensor], Tensor] | None,
    ) -> Context:
        """What a step sees. For a head step the heads stand in the tokens' place: valid, positions and scores are [B, H]."""
        needs = self._plan.stages[index].scorer.needs
        signals = {signal: tensor for signal, tensor in given.items() if signal in needs}
        if Signal.HIDDEN in needs:
            signals[Signal.HIDDEN] = hidden
        if Signal.UNIT in needs:
            place = self.positions.clamp(min=0)
            signals[Signal.UNIT] = self.positions if self._units is None else self._units.gather(1, place)
        for signal in sorted(needs & PROBED_SIGNALS):
            assert self._probe is not None
            ids = self._place if self.position_ids is None else self.position_ids
            signals[signal] = self._probe(signal, step.layer, hidden, ids)
        valid, positions, size, initial, segment = self.valid, self.positions, self.size, self._initial, self.segment
        if step.site is Site.HEAD:
            valid, size, segment = self.heads, self.heads.to(torch.float32), None
            every = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
            positions, initial = every.masked_fill(~valid, -1), torch.full_like(initial, valid.shape[1])
        return Context(
            shape=self._plan.shape,
            layer=step.layer,
            valid=valid,
            positions=positions,
            size=size,
            initial=initial,
            signals=signals,
            state=self._states.get(index),
            seed=self._seed,
            segment=segment,
            project=project,
        )

    def _drop_heads(self, reduction: Reduction) -> None:
        batch, slot = reduction.valid.nonzero(as_tuple=True)
        kept = torch.zeros_like(self.heads)
        kept[batch, reduction.keep[batch, slot]] = True
        self.heads = self.heads & kept

    def _reduce_tokens(self, reduction: Reduction, hidden: Tensor, stage: Stage) -> Tensor:
        """Move the tokens, and bring along what is kept a token: signals and states of the scorers."""
        self.valid, self.positions, self.size = reduction.valid, reduction.positions, reduction.size
        self._place = reduction.gather(self._place, fill=-1)
        if self.segment is not None:
            # A token that a method made stands for reduced ones.
            self.segment = reduction.gather(self.segment) | (reduction.valid & (reduction.keep < 0))
        if self.position_ids is not None:
            if stage.renumber:
                self.position_ids = (reduction.valid.cumsum(-1) - 1).clamp(min=0)
            else:
                self.position_ids = reduction.gather(self.position_ids)
        self._reduced = True
        self._kept_signals = {
            layer: _moved(kept, reduction, stage.merges_signals) for layer, kept in self._kept_signals.items()
        }
        if self._layers:
            self._layers[-1].signals = _moved(self._layers[-1].signals, reduction, stage.merges_signals)
        for index, state in self._states.items():
            if not self._is_head_stage(index):
                self._states[index] = reduction.gather(state)
        return reduction.apply(hidden)

    def _leave_out_first(self) -> None:
        """The model itself cut off the first row."""
        self._first_valid, self.valid = self._first_valid[:, 1:], self.valid[:, 1:]
        self.positions, self._place, self.size = self.positions[:, 1:], self._place[:, 1:], self.size[:, 1:]
        self._initial = self._first_valid.sum(-1)
        for layer, kept in self._kept_signals.items():
            self._kept_signals[layer] = {
                signal: tensor if signal is Signal.HEAD_ABSOLUTE_SUM else tensor[:, :, 1:]
                for signal, tensor in kept.items()
            }
        self._states = {
            index: state if self._is_head_stage(index) else state[:, 1:] for index, state in self._states.items()
        }

    def _is_head_stage(self, index: int) -> bool:
        return any(step.site is Site.HEAD for steps in self._plan.steps for stage, step in steps if stage == index)

    def _add_weighted(self, hidden: Tensor, cumulative: Tensor, before: Tensor | None) -> None:
        """Add hidden x (growth of the halting score, the remainder where it reaches 1) at the tokens' first rows."""
        if self._halted_sum is None:
            first = self._first_valid
            self._halted_sum = torch.zeros((*first.shape, hidden.shape[-1]), dtype=hidden.dtype, device=hidden.device)
        earlier = torch.zeros_like(cumulative) if before is None else before
        weight = cumulative.clamp(max=1) - earlier
        batch, row = self.valid.nonzero(as_tuple=True)
        added = hidden[batch, row] * weight[batch, row].to(hidden.dtype).unsqueeze(-1)
        self._halted_sum = self._halted_sum.index_put((batch, self._place[batch, row]), added, accumulate=True)

    def _depth_weighted_output(self, hidden: Tensor) -> Tensor:
        """The sums, for all tokens that the pass began with."""
        assert self._halted_sum is not None
        first = self._first_valid
        here = torch.arange(first.shape[1], device=first.device).expand(first.shape)
        self.valid, self.size = first, first.to(torch.float32)
        self._place = self.positions = here.masked_fill(~first, -1)
        return self._halted_sum


def _moved(signals: Mapping[Signal, Tensor], reduction: Reduction, merge: bool) -> dict[Signal, Tensor]:
    """Signals [B, H, N, ...] with their tokens reduced."""
    move = reduction.apply if merge else reduction.gather
    return {
        signal: tensor
        if signal is Signal.HEAD_ABSOLUTE_SUM or not tensor.numel()
        else move(tensor.transpose(1, 2)).transpose(1, 2)
        for signal, tensor in signals.items()
    }
