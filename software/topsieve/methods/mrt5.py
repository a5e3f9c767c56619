"""`MrT5`: a learned gate deletes tokens once, after a few layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.delete_gate import shipped
from topsieve.methods.checks import check_choice, check_count, check_flag, check_range, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Scorer, Selector, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import DeleteGate, FixedGate, RandomGate
from topsieve.reduction.selectors import TopScores, Undeleted
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class MrT5:
    """MrT5: a learned gate deletes tokens once, after a few layers.

    Kallini et al., ICLR 2025; specification `methods-text`, section 5.

    At the input of one layer a unit on the normalised hidden state of each token gives a gate between `scale` and 0;
    tokens whose gate is over the threshold stay, the others are gone for all layers behind. How many stay depends on
    the text. A sequence without any keeps its first token. Signals: hidden states.

    Made for ByT5, whose tokens are bytes; here it sits in any encoder. Without `weights` the gate is as before
    training and deletes by chance; "minilm" is a gate trained here on MiniLM in under a minute
    (`python -m topsieve.delete_gate.train`), not the paper's. The soft deletion of its training is
    `topsieve.delete_gate.soft`.

    Differences from the published code: each sequence counts alone, so padding slots are dead and not copies of the first
    token; where every token of the batch goes, `variant` says what happens.

    Parameters
    ----------
    keep : share of the tokens that stays, in (0, 1], those of the largest gates; replaces the threshold. Counts round
        down. None: the threshold decides.
    layer : before which layer, counted from 0 (the scripts' 3; the published class has 2 where nothing is said).
    scale : the gate's negative end (the scripts' -30; -10 in the class).
    threshold : gates over it stay; half of `scale` where none is given.
    variant : "paper", or "official": an error where the whole batch would be deleted.
    weights : safetensors file of a gate, or "minilm" for the one that comes with the package.
    seed : of the untrained gate, and of the random one.
    gate : "sigmoid", the paper's, between `scale` and 0; "log-sigmoid", without a lower end; and the paper's baselines:
        "random": a share of the tokens goes, the share and they drawn by the seed; "fixed": of each unit of the text the first tokens
        stay (`units` of `topsieve.reduce`, made by `topsieve.delete_gate.segments`; without them everything stays).
    share : of the tokens, or of a unit's, that a random or fixed gate deletes.
    spread : standard deviation of the random gate's share (0.05).
    softmax_one : attention may go to nothing, exp(x) / (1 + sum exp(x)), in all layers.
    """

    name: ClassVar[str] = "mrt5"

    keep: float | None = None
    layer: int = 3
    scale: float = -30.0
    threshold: float | None = None
    variant: Literal["paper", "official"] = "paper"
    weights: str = ""
    seed: int = 0
    gate: Literal["sigmoid", "log-sigmoid", "random", "fixed"] = "sigmoid"
    share: float = 0.5
    spread: float = 0.05
    softmax_one: bool = False

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "layer", self.layer, low=1)
        check_choice(self.name, "variant", self.variant, ("paper", "official"))
        check_count(self.name, "seed", self.seed)
        check_choice(self.name, "gate", self.gate, ("sigmoid", "log-sigmoid", "random", "fixed"))
        check_range(self.name, "share", self.share, 0, 1)
        check_range(self.name, "spread", self.spread, 0)
        check_flag(self.name, "softmax_one", self.softmax_one)
        if not self.scale < 0:
            raise InputError(
                "wrong value", source=f"method {self.name}", field="scale", value=self.scale, allowed="under 0"
            )

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        selector: Selector
        if self.keep is not None:
            budget, selector = Budget(ratio=self.keep, base=Base.INITIAL), TopScores()
        else:
            threshold = self.scale / 2 if self.threshold is None else self.threshold
            budget, selector = Budget(threshold=threshold), Undeleted(self.variant == "official")
        schedule = ListedLayers(Site.LAYER, ((self.layer - 1, budget),))
        return (Stage(schedule, self._scorer(), selector, Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy(softmax_one=self.softmax_one)

    def _scorer(self) -> Scorer:
        if self.gate == "random":
            return RandomGate(self.scale, self.share, self.spread, self.seed)
        if self.gate == "fixed":
            return FixedGate(self.scale, self.share)
        return DeleteGate(self.scale, shipped(self.weights), self.seed, self.gate)
