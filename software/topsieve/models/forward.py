"""One forward pass under a method: which tokens and heads live, the scorers' states, and the record it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from topsieve.methods import spell
from topsieve.models.attention import attend
from topsieve.record import LayerRecord, Record
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
KERNEL_SIGNALS = frozenset({Signal.HIDDEN, Signal.KEY})

# The model's own attention: query, key, value and a bool mask [B, N] of live tokens (None: the mask the model made).
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Plan:
    """A method laid out on a model: its stages, and the steps of each layer in the order they are taken."""

    shape: ModelShape
    method: Method
    stages: tuple[Stage, ...]
    steps: tuple[tuple[tuple[int, Step], ...], ...]  # a layer: (index of the stage, step)

    @classmethod
    def of(cls, method: Method, shape: ModelShape) -> Plan:
        """Ask `method` for its stages and their steps on a model of `shape`."""
        stages = method.stages(shape)
        planned = [(index, step) for index, stage in enumerate(stages) for step in stage.schedule.plan(shape)]
        layers = range(shape.layers)
        return cls(
            shape, method, stages, tuple(tuple(item for item in planned if item[1].layer == layer) for layer in layers)
        )

    def needs(self, layer: int) -> frozenset[Signal]:
        """Signals that the scorers of `layer` read."""
        wanted = (self.stages[index].scorer.needs for index, _ in self.steps[layer])
        return frozenset().union(*wanted)


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
    """

    def __init__(self, plan: Plan, valid: Tensor, *, seed: int, keep_operands: bool) -> None:
        self._plan = plan
        self._seed = seed
        self._keep_operands = keep_operands
        self._initial = valid.sum(-1)
        self._layers: list[_Layer] = []
        self._states: dict[int, Tensor] = {}
        self._reduced = False
        self.valid = valid
        self.positions = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape).masked_fill(~valid, -1)
        self.size = valid.to(torch.float32)
        self.heads = torch.ones((valid.shape[0], plan.shape.heads), dtype=torch.bool, device=valid.device)

    def attention(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel, *, scaling: float, dropout: float
    ) -> Tensor:
        """Attention of `layer` on [B, H, N, d]: [B, N, H, d]. The model's own kernel works where nothing else is asked."""
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
            if Signal.KEY in needs:
                running.signals[Signal.KEY] = key
            return kernel(query, key, value, self.valid if self._reduced else None)
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
        )
        running.signals.update(attended.signals)
        running.lsb_rows = attended.lsb_rows
        return attended.output

    def before_ffn(self, hidden: Tensor) -> Tensor:
        """Take the steps between attention and FFN on `hidden` [B, N, C]."""
        hidden = self._take(hidden, {Site.MID_LAYER, Site.HEAD})
        self._layers[-1].ffn_tokens = self.valid.sum(-1)
        self._layers[-1].ffn_padded = self.valid.shape[1]
        return hidden

    def after_layer(self, hidden: Tensor) -> Tensor:
        """Take the steps on the output of the layer."""
        hidden = self._take(hidden, {Site.LAYER})
        self._layers[-1].signals = dict.fromkeys(
            self._layers[-1].signals, torch.empty(0)
        )  # only the names are recorded
        return hidden

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
        return Record(self._plan.shape, spell(self._plan.method), tuple(layers))

    def _take(self, hidden: Tensor, sites: set[Site]) -> Tensor:
        layer = len(self._layers) - 1
        for index, step in self._plan.steps[layer]:
            if step.site not in sites:
                continue
            stage = self._plan.stages[index]
            decision = decide(stage, step, self._context(index, step, hidden))
            self._layers[-1].decisions.append(decision)
            self._layers[-1].decided_among.append(self.heads if step.site is Site.HEAD else self.valid)
            if stage.accumulates:
                self._states[index] = decision.reduction.scores
            if step.site is Site.HEAD:
                self._drop_heads(decision.reduction)
            else:
                hidden = self._reduce_tokens(decision.reduction, hidden)
        return hidden

    def _context(self, index: int, step: Step, hidden: Tensor) -> Context:
        """What a step sees. For a head step the heads stand in the tokens' place: valid, positions and scores are [B, H]."""
        needs = self._plan.stages[index].scorer.needs
        signals = {signal: tensor for signal, tensor in self._layers[-1].signals.items() if signal in needs}
        if Signal.HIDDEN in needs:
            signals[Signal.HIDDEN] = hidden
        valid, positions, size, initial = self.valid, self.positions, self.size, self._initial
        if step.site is Site.HEAD:
            valid, size = self.heads, self.heads.to(torch.float32)
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
        )

    def _drop_heads(self, reduction: Reduction) -> None:
        batch, slot = reduction.valid.nonzero(as_tuple=True)
        kept = torch.zeros_like(self.heads)
        kept[batch, reduction.keep[batch, slot]] = True
        self.heads = self.heads & kept

    def _reduce_tokens(self, reduction: Reduction, hidden: Tensor) -> Tensor:
        """Move the tokens, and bring along what is kept a token: signals of this layer and states of the scorers."""
        self.valid, self.positions, self.size = reduction.valid, reduction.positions, reduction.size
        self._reduced = True
        signals = self._layers[-1].signals
        for signal, tensor in signals.items():
            if signal is not Signal.HEAD_ABSOLUTE_SUM:
                signals[signal] = reduction.gather(tensor.transpose(1, 2)).transpose(1, 2)
        for index, state in self._states.items():
            if not self._is_head_stage(index):
                self._states[index] = reduction.gather(state)
        return reduction.apply(hidden)

    def _is_head_stage(self, index: int) -> bool:
        return any(step.site is Site.HEAD for steps in self._plan.steps for stage, step in steps if stage == index)
