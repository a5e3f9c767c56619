"""Run the fine-tuning of a Hugging Face decoder under a method, and leave the model as it was."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from topsieve.cache.families import Decoder, decoder_of, is_decoder
from topsieve.methods import spell
from topsieve.models.hosting import Entered
from topsieve.reduction.roles import ModelShape
from topsieve.tuning.gated_ffn import ApproximateFfn, kept_channels
from topsieve.tuning.predictor import (
    attention_map,
    block_scores,
    kept_blocks,
    predictors,
    rows_of_blocks,
)
from topsieve.tuning.record import TunedLayer, TuningRecord
from topsieve.tuning.roles import BlockScores, TuningMethod, TuningPolicy
from topsieve_sim.errors import InputError


class TunedModel(Entered):
    """A decoder in fine-tuning, for the length of a `with` block. `topsieve.reduce` makes it.

    Gradients flow through what was computed. There is no cache, and sequences have no padding.

    record : `TuningRecord` of the last forward pass.
    """

    def __init__(self, model: Any, method: TuningMethod) -> None:
        self._decoder: Decoder = decoder_of(model)
        self._method = method
        self._policy: TuningPolicy = method.tuning(self._decoder.shape)
        self._layers: dict[int, TunedLayer] = {}
        self._size = (0, 0)
        if self._policy.mlp_drop:
            for block in self._decoder.blocks:
                _check_ffn(getattr(block, "mlp", None))

    @property
    def method(self) -> TuningMethod:
        """The method."""
        return self._method

    @property
    def policy(self) -> TuningPolicy:
        """What it does on this model."""
        return self._policy

    @property
    def record(self) -> TuningRecord:
        """What happened in the last forward pass."""
        shape = self._decoder.shape
        if len(self._layers) < shape.layers:
            raise InputError("no forward pass has finished yet", field="reduce")
        drop = self._policy.mlp_drop
        return TuningRecord(
            shape,
            spell(self._method),  # type: ignore[arg-type]
            self._policy,
            *self._size,
            kept_channels(shape.ffn_width, drop) if drop else shape.ffn_width,
            tuple(self._layers[index] for index in range(shape.layers)),
        )

    def report(self) -> str:
        """Tokens of each layer and FLOPs of the last forward pass, as text."""
        from topsieve.tuning.lowering import describe

        return describe(self.record)

    def __enter__(self) -> Self:
        modules = [*self._decoder.attentions, *self._decoder.blocks]
        if self._undo is not None or any("forward" in vars(module) for module in modules):
            raise InputError("the model is already under a reduction", field="model")
        with ExitStack() as undo:
            for index, attention in enumerate(self._decoder.attentions):
                vars(attention)["forward"] = functools.partial(self._attend, index, attention.forward)
                undo.callback(vars(attention).pop, "forward")
            for block in self._decoder.blocks if self._policy.mlp_drop else ():
                vars(block.mlp)["forward"] = functools.partial(self._feed, block.mlp)
                undo.callback(vars(block.mlp).pop, "forward")
            base = self._decoder.base
            undo.callback(base.register_forward_pre_hook(self._start, with_kwargs=True).remove)
            self._undo = undo.pop_all()
        return self

    def _start(
        self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        given = inspect.signature(base.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        if given.get("past_key_values") is not None:
            raise InputError("fine-tuning has no cache", field="past_key_values", allowed="none")
        mask = given.get("attention_mask")
        if mask is not None and not bool(mask.bool().all()):
            raise InputError("sequences must have no padding", field="attention_mask", allowed="none, or all ones")
        self._layers = {}
        return (), given | {"use_cache": False}

    def _attend(
        self, index: int, forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **given: Any
    ) -> tuple[Tensor, Any]:
        """Attention of layer `index` on the tokens of the chosen blocks, written back where they stand."""
        batch, tokens, width = hidden_states.shape
        self._size = (batch, tokens)
        plan = self._policy.layers[index]
        every = torch.arange(-(-tokens // self._policy.block)).expand(batch, -1)
        scores, maps = self._scores(index, hidden_states) if plan.scored else (None, ())
        blocks, rows = every, None
        if plan.sparse and scores is not None:
            blocks = kept_blocks(scores, plan.keep, plan.threshold)
            if blocks.shape[1] < every.shape[1]:
                rows = rows_of_blocks(blocks, self._policy.block, tokens)
        self._layers[index] = TunedLayer(index, plan, blocks, rows, scores, maps)
        if rows is None:
            dense: tuple[Tensor, Any] = forward(hidden_states, *args, **given)
            return dense
        at = rows.unsqueeze(-1).expand(-1, -1, width)
        output, weights = forward(hidden_states.gather(1, at), *args, **_at_rows(given, rows))
        return torch.zeros_like(hidden_states, dtype=output.dtype).scatter(1, at, output), weights

    @torch.no_grad()
    def _scores(self, index: int, hidden: Tensor) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """float [B, nb] and the maps of the predictor that made them, if one did."""
        shape, policy = self._decoder.shape, self._policy
        if policy.scores is BlockScores.ATTENTION:
            query, key = queries_and_keys(self._decoder.attentions[index], hidden, shape)
            return block_scores(attention_map(query, key, policy.block)), ()
        predictor = predictors(
            policy.weights, scored_layers(policy), shape.heads, shape.width // shape.heads, policy.block, policy.seed
        )[index]
        state = {name: x.to(hidden) for name, x in predictor.state_dict().items()}
        return block_scores(torch.func.functional_call(predictor, state, (hidden,))), predictor.maps

    def _feed(self, mlp: Any, x: Tensor) -> Tensor:
        weights = (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
        if any(weight.requires_grad for weight in weights):
            raise InputError("its maps must be frozen", source="method lemo", field="mlp_drop", allowed="0")
        output: Tensor = ApproximateFfn.apply(x, *weights, self._policy.mlp_drop)
        return output


def scored_layers(policy: TuningPolicy) -> tuple[int, ...]:
    """Layers whose blocks are scored."""
    return tuple(index for index, plan in enumerate(policy.layers) if plan.scored)


def queries_and_keys(attention: Any, hidden: Tensor, shape: ModelShape) -> tuple[Tensor, Tensor]:
    """float [B, H, N, d] and [B, KV, N, d] of the normalised input [B, N, C], before rotation."""
    if hasattr(attention, "c_attn"):
        columns = 2 * shape.heads * shape.head_dim  # of queries and keys; values stand behind them
        weight, bias = attention.c_attn.weight[:, :columns], attention.c_attn.bias[:columns]
        query, key = nn.functional.linear(hidden, weight.T, bias).chunk(2, dim=-1)
    else:
        query, key = attention.q_proj(hidden), attention.k_proj(hidden)
    heads = [x.unflatten(-1, (-1, shape.head_dim)) for x in (query, key)]
    norms = (getattr(attention, name, nn.Identity()) for name in ("q_norm", "k_norm"))
    first, second = (norm(x).transpose(1, 2) for norm, x in zip(norms, heads, strict=True))
    return first, second


def _at_rows(given: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """The arguments of an attention module for the tokens `rows` [B, n] alone."""
    batch, count = rows.shape
    moved = dict(given)
    if given.get("position_embeddings") is not None:
        at = rows.unsqueeze(-1)
        moved["position_embeddings"] = tuple(
            x.expand(batch, -1, -1).gather(1, at.expand(-1, -1, x.shape[-1])) for x in given["position_embeddings"]
        )
    if given.get("position_ids") is not None:
        moved["position_ids"] = given["position_ids"].expand(batch, -1).gather(1, rows)
    mask = given.get("attention_mask")
    if mask is not None:
        mask = mask.expand(batch, *mask.shape[1:])
        mask = mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
        moved["attention_mask"] = mask.gather(3, rows[:, None, None, :].expand(-1, mask.shape[1], count, -1))
    return moved


def _check_ffn(mlp: Any) -> None:
    names = ("gate_proj", "up_proj", "down_proj")
    gated = mlp is not None and all(hasattr(mlp, name) and getattr(mlp, name).bias is None for name in names)
    if not gated or not isinstance(mlp.act_fn, nn.SiLU | type(_silu())):
        raise InputError(
            "needs a gated FFN with SiLU", source="method lemo", field="mlp_drop", allowed="0 on this model"
        )


def _silu() -> nn.Module:
    """SiLU as transformers has it."""
    from transformers.activations import ACT2FN

    module: nn.Module = ACT2FN["silu"]
    return module


def tuned(model: Any, method: Any) -> TunedModel:
    """`model`, a decoder, under `method`.

    Raises
    ------
    InputError
        it is none, or as of `decoder_of`.
    """
    if not is_decoder(model):
        raise InputError(f"{method.name} acts on decoders", field="model", value=type(model).__name__)
    return TunedModel(model, method)
