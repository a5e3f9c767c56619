"""`LeMo`: in fine-tuning, a layer's attention works on the blocks of tokens that matter to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape
from topsieve.tuning.roles import BlockScores, LayerPlan, TuningOnly, TuningPolicy
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class LeMo(TuningOnly):
    """LeMo: in fine-tuning, a layer's attention works on the blocks of tokens that matter to it.

    Wang et al., 2025, published as JENGA at USENIX ATC 2025; specification `methods-text`, section 6.

    Small networks on a layer's input predict which 64-token blocks are looked at; projections and attention work on the
    tokens of the best blocks, at their own positions, and what they give is added where they stand. The others pass
    through the residual alone. The FFN works on all tokens. It acts in the forward and, through it, in the backward pass
    of decoders; nothing is removed for good, and the model needs no cache. Signals: the normalised input of each layer.

    Without `weights` the predictors choose by chance; `topsieve.tuning.train` fits them to a model, and
    `scores=attention` takes the map that they learn, which costs more than it saves.

    Differences from the published code: a last block that is not full counts as one; batches are possible, each
    sequence with its own blocks; of equal scores the earlier block stays.

    Parameters
    ----------
    keep : share of the blocks that a sparse layer's attention works on, in (0, 1]; int(blocks x keep), at least one.
    block : tokens of a block.
    full_layers : layers at the input that work on all tokens; None: half of the layers less one (15 of 32). The last
        layer always does.
    variant : "official": a fixed share, and the predictors of the full layers run too, without effect; "paper": the
        `thresholds`, and no predictor where all blocks stay.
    thresholds : of the paper: score over which a block stays, one a layer; layers beyond the list use `keep`.
    scores : "predictor" or "attention".
    weights : safetensors file of the predictors.
    seed : of untrained predictors.
    mlp_drop : share of the channels of a gated FFN that the gradient leaves out (the published code: 0.8). The FFN's
        weights must then be frozen, as under LoRA.
    """

    name: ClassVar[str] = "lemo"

    keep: float = 0.4
    block: int = 64
    full_layers: int | None = None
    variant: Literal["official", "paper"] = "official"
    thresholds: tuple[float, ...] = ()
    scores: Literal["predictor", "attention"] = "predictor"
    weights: str = ""
    seed: int = 0
    mlp_drop: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "block", self.block, low=1)
        check_count(self.name, "full_layers", self.full_layers)
        check_choice(self.name, "variant", self.variant, ("official", "paper"))
        check_choice(self.name, "scores", self.scores, ("predictor", "attention"))
        check_count(self.name, "seed", self.seed)
        check_range(self.name, "mlp_drop", self.mlp_drop, 0, 1)
        if self.thresholds and self.variant == "official":
            raise InputError(
                "only the paper has them", source=f"method {self.name}", field="thresholds", value=self.thresholds
            )

    def tuning(self, shape: ModelShape) -> TuningPolicy:
        full = max(shape.layers // 2 - 1, 0) if self.full_layers is None else self.full_layers
        plans = tuple(self._plan(layer, full, shape.layers) for layer in range(shape.layers))
        return TuningPolicy(plans, self.block, BlockScores(self.scores), self.weights, self.seed, self.mlp_drop)

    def _plan(self, layer: int, full: int, layers: int) -> LayerPlan:
        official = self.variant == "official"
        if layer == layers - 1:
            return LayerPlan()
        if layer < full:
            return LayerPlan(scored=official)
        if layer < len(self.thresholds):
            return LayerPlan(scored=True, threshold=self.thresholds[layer])
        if self.keep == 1:
            return LayerPlan(scored=official)
        return LayerPlan(scored=True, keep=self.keep)
