"""SpAtten's cascade in a decoder: tokens and heads that a layer drops are not seen by the layers after it.

Importance runs on over heads, layers and passes. Every pass starts from all tokens that are still in the first layer's
cache; a layer's cache gives up what the layers before it have dropped, so memory is freed.

Source: specification `accelerator`, sections 1.1 and 1.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve.cache.attention import Seen
from topsieve.cache.roles import Cascade, Taps
from topsieve.reduction.deciding import decide
from topsieve.reduction.roles import Context, Decision, ModelShape, Signal, Site, Step


class CascadeState:
    """Who is alive in the running pass, and what was accumulated so far.

    alive : bool [B, T], columns that the running layer sees; heads : bool [B, H].
    """

    def __init__(self, cascade: Cascade, shape: ModelShape, seed: int) -> None:
        self._stages = cascade.stages
        self._shape = shape
        self._seed = seed
        plans = [stage.schedule.plan(shape) for stage in cascade.stages]
        self._steps: list[list[tuple[int, Step]]] = [
            [(index, step) for index, plan in enumerate(plans) for step in plan if step.layer == layer]
            for layer in range(shape.layers)
        ]
        self._states: dict[int, Tensor] = {}
        self.alive = torch.empty(0)
        self.heads = torch.empty(0)

    @staticmethod
    def taps(cascade: Cascade) -> Taps:
        """What attention must hand over."""
        needs = frozenset().union(*(stage.scorer.needs for stage in cascade.stages))
        return Taps(column_sum=Signal.ATTENTION_COLUMN_SUM in needs, head_sum=Signal.HEAD_ABSOLUTE_SUM in needs)

    def begin(self, live: Tensor, positions: Tensor, queries: int) -> None:
        """A pass over `queries` new tokens: everything live is alive again, all heads too."""
        self.alive = live
        self._positions = positions
        self._newest = live.shape[1] - 1
        self.heads = torch.ones((live.shape[0], self._shape.heads), dtype=torch.bool, device=live.device)
        for index, state in self._states.items():
            if self._stages[index].scorer.needs == {Signal.ATTENTION_COLUMN_SUM}:
                missing = live.shape[1] - state.shape[1]
                self._states[index] = torch.cat([state, state.new_zeros(state.shape[0], missing)], dim=1)

    def after(
        self, layer: int, seen: Seen, valid: Tensor, columns: Tensor, kv_heads: int
    ) -> tuple[tuple[Decision, Tensor], ...]:
        """Take the steps behind attention of `layer`; each with the tokens or heads it decided among."""
        taken = []
        for index, step in self._steps[layer]:
            stage = self._stages[index]
            head_step = step.site is Site.HEAD
            context = self._context(index, step, seen, valid, columns, kv_heads)
            decision = decide(stage, step, context)
            taken.append((decision, context.valid))
            if stage.accumulates:
                self._states[index] = decision.reduction.scores
            kept = torch.zeros_like(context.valid)
            row, slot = decision.reduction.valid.nonzero(as_tuple=True)
            kept[row, decision.reduction.keep[row, slot]] = True
            if head_step:
                self.heads = self.heads & kept
            else:
                # The newest token speaks next; without it there is no answer.
                newest = torch.zeros_like(kept)
                newest[:, self._newest] = True
                self.alive = self.alive & (kept | newest)
        return tuple(taken)

    def _context(self, index: int, step: Step, seen: Seen, valid: Tensor, columns: Tensor, kv_heads: int) -> Context:
        sequences = self.alive.shape[0]
        if step.site is Site.HEAD:
            assert seen.head_sum is not None
            every = torch.arange(self.heads.shape[1], device=self.heads.device).expand(self.heads.shape)
            return Context(
                shape=self._shape,
                layer=step.layer,
                valid=self.heads,
                positions=every.masked_fill(~self.heads, -1),
                size=self.heads.to(torch.float32),
                initial=torch.full((sequences,), self.heads.shape[1], device=self.heads.device),
                signals={Signal.HEAD_ABSOLUTE_SUM: seen.head_sum.reshape(sequences, -1)},
                state=self._states.get(index),
                seed=self._seed,
            )
        assert seen.column_sum is not None
        # From the slots of each head to the columns of the sequence.
        sums = (seen.column_sum * valid.unsqueeze(1)).reshape(sequences, -1, columns.shape[1])
        place = columns.reshape(sequences, kv_heads, 1, -1).expand(-1, -1, sums.shape[1] // kv_heads, -1)
        spread = sums.new_zeros((*sums.shape[:2], self.alive.shape[1]))
        spread = spread.scatter_add(2, place.reshape(sums.shape), sums)
        live = self.alive
        return Context(
            shape=self._shape,
            layer=step.layer,
            valid=live,
            positions=self._positions.masked_fill(~live, -1),
            size=live.to(torch.float32),
            initial=(self._positions >= 0).sum(-1),
            signals={Signal.ATTENTION_COLUMN_SUM: spread},
            state=self._states.get(index),
            seed=self._seed,
        )
