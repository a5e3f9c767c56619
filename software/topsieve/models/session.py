"""`reduce`: run a Hugging Face model under a reduction method, and leave it as it was."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from topsieve.methods import build
from topsieve.models.families import REDUCED_PREFIX, Encoder, check_attention, encoder_of
from topsieve.models.forward import ForwardPass, Plan
from topsieve.record import Record
from topsieve.reduction.roles import Method
from topsieve_sim.errors import InputError

_NUMBERS = itertools.count()


class ReducedModel:
    """A model under a method, for the length of a `with` block. `topsieve.reduce` makes it.

    After a forward pass, until the next one:

    record : `Record`, what happened layer by layer.
    valid : bool [B, K], live tokens of the last hidden states [B, K, C].
    positions : int64 [B, K], columns of the input batch they stand at; -1 for padding and merged tokens.
    size : float [B, K], input tokens each stands for; 0 for padding.
    """

    def __init__(self, model: object, method: Method, *, operands: bool = False, seed: int = 0) -> None:
        self._encoder: Encoder = encoder_of(model)
        self._plan = Plan.of(method, self._encoder.shape)
        self._operands = operands
        self._seed = seed
        self._undo: ExitStack | None = None
        self._pass: ForwardPass | None = None
        self._done = False

    @property
    def method(self) -> Method:
        """The method."""
        return self._plan.method

    @property
    def record(self) -> Record:
        """What happened in the last forward pass."""
        return self._finished().record()

    @property
    def valid(self) -> Tensor:
        """bool [B, K]."""
        return self._finished().valid

    @property
    def positions(self) -> Tensor:
        """int64 [B, K]."""
        return self._finished().positions

    @property
    def size(self) -> Tensor:
        """float [B, K]."""
        return self._finished().size

    def report(self) -> str:
        """Tokens of each layer and FLOPs of the last forward pass, as text."""
        from topsieve.lowering import describe

        return describe(self.record)

    def __enter__(self) -> Self:
        base = self._encoder.base
        previous = base.config._attn_implementation
        check_attention(previous)
        if self._undo is not None:
            raise InputError("this reduction is already in use", field="reduce")
        name = f"{REDUCED_PREFIX}{next(_NUMBERS)}"
        with ExitStack() as undo:
            # A mask function of the same name, or transformers would drop the padding mask without a word.
            _register(undo, AttentionMaskInterface, name, AttentionMaskInterface._global_mapping[previous])
            _register(undo, AttentionInterface, name, self._attention_function(previous))
            undo.callback(setattr, base.config, "_attn_implementation_internal", previous)
            base.set_attn_implementation(name)
            undo.callback(base.register_forward_pre_hook(self._start, with_kwargs=True).remove)
            undo.callback(base.register_forward_hook(self._stop).remove)
            for layer in self._encoder.layers:
                undo.callback(layer.attention.register_forward_hook(self._before_ffn).remove)
                undo.callback(layer.layer.register_forward_hook(self._after_layer).remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._undo is not None
        undo, self._undo = self._undo, None
        undo.close()

    def _finished(self) -> ForwardPass:
        if self._pass is None or not self._done:
            raise InputError("no forward pass has finished yet", field="reduce")
        return self._pass

    def _running(self) -> ForwardPass:
        assert self._pass is not None
        return self._pass

    def _start(self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(base.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        if given.get("output_attentions"):
            raise InputError("is not available under a reduction", field="output_attentions", allowed="False")
        if given.get("encoder_hidden_states") is not None or given.get("past_key_values") is not None:
            raise InputError("only an encoder can be reduced", field="encoder_hidden_states, past_key_values")
        self._done = False
        self._pass = ForwardPass(self._plan, _live_tokens(given), seed=self._seed, keep_operands=self._operands)

    def _stop(self, *_: object) -> None:
        self._done = True

    def _before_ffn(self, module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Any]) -> tuple[Any, ...]:
        return (self._running().before_ffn(output[0]), *output[1:])

    def _after_layer(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._running().after_layer(output)

    def _attention_function(self, previous: str) -> Callable[..., tuple[Tensor, None]]:
        """What transformers calls in place of its attention; `previous` names the implementation it replaces."""
        numbers = {id(layer.self_attention): index for index, layer in enumerate(self._encoder.layers)}

        def attention(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor | None,
            scaling: float | None = None,
            dropout: float = 0.0,
            **others: Any,
        ) -> tuple[Tensor, None]:
            factor = query.shape[-1] ** -0.5 if scaling is None else scaling

            def kernel(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
                mask = attention_mask if valid is None else _mask(previous, valid, query.dtype)
                function = _kernel(previous, module)
                return function(module, query, key, value, mask, scaling=factor, dropout=dropout, **others)[0]

            output = self._running().attention(
                numbers[id(module)], query, key, value, kernel, scaling=factor, dropout=dropout
            )
            return output, None

        return attention


def reduce(
    model: PreTrainedModel,
    method: str | Method,
    *,
    keep: float | None = None,
    operands: bool = False,
    seed: int = 0,
    **parameters: Any,
) -> ReducedModel:
    """Run `model` under `method` inside a `with` block; outside of it the model is as it was.

    ```python
    with topsieve.reduce(model, "spatten", keep=0.5) as r:
        out = model(**batch)
    embedding = topsieve.mean_pool(out.last_hidden_state, r.valid, r.size)
    ```

    Parameters
    ----------
    model : a post-LN encoder of Hugging Face transformers (BERT family), alone or inside a task model.
    method : a method, or the text of one as `topsieve.methods.build` reads it: `spatten`, `spatten:value_keep=0.3`.
    keep : share of the tokens that live after the last step, in (0, 1].
    operands : keep query, key and value of every layer in the record, for traces with operands.
    seed : of random methods.
    parameters : other fields of the method.

    Raises
    ------
    InputError
        unsupported model, unknown method or wrong parameters; in the forward pass: a mask that is not [B, N], a sequence
        without tokens, `output_attentions`, or a decoder's arguments.
    """
    if isinstance(method, str):
        method = build(method, keep=keep)
    elif keep is not None:
        parameters["keep"] = keep
    names = [field.name for field in dataclasses.fields(cast(Any, method)) if field.init]
    unknown = [name for name in parameters if name not in names]
    if unknown:
        raise InputError(
            "unknown parameter", source=f"method {method.name}", value=unknown[0], allowed=", ".join(names) or "none"
        )
    changed: Method = dataclasses.replace(cast(Any, method), **parameters)
    return ReducedModel(model, changed, operands=operands, seed=seed)


def _register(undo: ExitStack, interface: Any, name: str, function: Any) -> None:
    interface.register(name, function)
    undo.callback(interface._global_mapping.pop, name, None)


def _live_tokens(given: dict[str, Any]) -> Tensor:
    """bool [B, N] from the arguments of the forward pass."""
    tokens = given.get("input_ids")
    if tokens is None:
        tokens = given.get("inputs_embeds")
    if tokens is None:
        raise InputError("one of input_ids and inputs_embeds is needed", field="input_ids")
    mask = given.get("attention_mask")
    if mask is None:
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if mask.shape != tokens.shape[:2]:
        raise InputError(
            "wrong shape", field="attention_mask", value=tuple(mask.shape), allowed=f"{tuple(tokens.shape[:2])}"
        )
    valid: Tensor = mask.to(torch.bool)
    empty = (~valid.any(-1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"sequence {empty[0]} of the batch has no tokens", field="attention_mask")
    return valid


def _kernel(implementation: str, module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The attention function that `implementation` stands for in the file of `module`."""
    if implementation == "eager":
        eager: Callable[..., tuple[Tensor, Any]] = sys.modules[type(module).__module__].eager_attention_forward
        return eager
    registered: Callable[..., tuple[Tensor, Any]] = AttentionInterface._global_mapping[implementation]
    return registered


def _mask(implementation: str, valid: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The mask in the form `implementation` takes, for the tokens that are left; None where all live."""
    if bool(valid.all()):
        return None
    batch, tokens = valid.shape
    allowed = valid[:, None, None, :].expand(batch, 1, tokens, tokens)
    if implementation == "sdpa":
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=valid.device).masked_fill(~allowed, torch.finfo(dtype).min)
