"""`SkipDecode`: later tokens run fewer layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.layer_budget import LayerBudget
from topsieve.cache.roles import CacheOnly, CachePolicy
from topsieve.methods.checks import check_choice, check_count, check_range
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve.reduction.roles import ModelShape
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class SkipDecode(CacheOnly):
    """SkipDecode: a budget of layers for each position, which falls along the sequence.

    Del Corro et al., 2023; specification `methods-text`, section 8. No official code is public; what two readers and a
    re-implementation agree on is followed.

    The first layers and, of the rest, the last ones run; the hidden state jumps over the gap. All sequences of a batch
    share the budget, and nothing is looked at: a counter and a table of one number a position are the whole selection,
    so the trace holds no operation for it. A layer that was skipped once never runs again, and its part of the cache is
    given up. Tokens are not reduced, so there is no `keep`. Signals: none.

    The paper fine-tunes with the schedule. Without that, as here, the hidden state arrives at layers that never saw it.

    Parameters
    ----------
    speedup : layers of the model over the mean budget; the budget then goes from 4/3 to 2/3 of the mean, the paper's 16
        to 8 of 24 layers at 2, rounded half to even.
    max_layers, min_layers : at the first and the last generated position, `warm_up` included; they replace `speedup`.
    warm_up : layers at the input that always run.
    prompt_budget : "all": all layers read the prompt, as in the re-implementation; "max": `max_layers`, as in the paper.
    new_tokens : generated tokens over which the budget falls; it stays at its end behind them.
    max_length : the paper's T, the columns of the longest sequence; replaces `new_tokens`.
    rounding : of the line between the ends: "half_even" or "floor". The paper's is unknown.
    """

    name: ClassVar[str] = "skipdecode"

    speedup: float = 2.0
    max_layers: int | None = None
    min_layers: int | None = None
    warm_up: int = 1
    prompt_budget: Literal["all", "max"] = "all"
    new_tokens: int = 64
    max_length: int | None = None
    rounding: Literal["half_even", "floor"] = "half_even"

    def __post_init__(self) -> None:
        check_range(self.name, "speedup", self.speedup, 1)
        check_count(self.name, "warm_up", self.warm_up, low=1)
        for field in ("max_layers", "min_layers"):
            check_count(self.name, field, getattr(self, field), low=self.warm_up)
        check_count(self.name, "new_tokens", self.new_tokens, low=1)
        check_count(self.name, "max_length", self.max_length, low=1)
        check_choice(self.name, "prompt_budget", self.prompt_budget, ("all", "max"))
        check_choice(self.name, "rounding", self.rounding, ("half_even", "floor"))
        if (self.max_layers is None) != (self.min_layers is None):
            raise self._wrong("max_layers and min_layers together")
        if self.max_layers is not None and self.min_layers is not None and self.min_layers > self.max_layers:
            raise self._wrong(f"at most max_layers = {self.max_layers}")

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.max_layers is None or self.min_layers is None:
            mean = shape.layers / exact(self.speedup)
            least = max(rounded(mean * 2 / 3, Rounding.HALF_EVEN), self.warm_up)
            most = min(max(rounded(mean * 4 / 3, Rounding.HALF_EVEN), least), shape.layers)
        else:
            most, least = self.max_layers, self.min_layers
        if self.speedup == 1 and self.max_layers is None:
            return CachePolicy()
        budget = LayerBudget(
            most,
            least,
            self.warm_up,
            self.prompt_budget == "all",
            self.max_length,
            self.new_tokens,
            Rounding(self.rounding),
        )
        return CachePolicy(layers=budget)

    def _wrong(self, allowed: str) -> InputError:
        return InputError(
            "wrong value", source=f"method {self.name}", field="min_layers", value=self.min_layers, allowed=allowed
        )
