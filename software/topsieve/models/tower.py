"""One stack of layers under a method: its attention function, its hooks, and the running forward pass."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from topsieve.models.attention import expanded
from topsieve.models.families import Encoder, EncoderLayer, check_attention
from topsieve.models.forward import ForwardPass, Plan
from topsieve.models.hosting import attention_kernel, registered, unused_name
from topsieve.reduction.roles import Method, Signal, Site

if TYPE_CHECKING:
    from topsieve.cache.continuing import Continuation


class ReducedTower:
    """The layers of `encoder` under `method`, while its hooks are installed.

    Parameters
    ----------
    operands : keep query, key and value of every layer in the record.
    seed : of random methods.
    ends : the steps after the last layer are taken on its output; else someone else takes them.

    continuation : what keeps the cache of a prompt and decodes behind it; None where no cache is kept.
    decoding : the pass that runs is one behind the prompt, which takes no steps.
    """

    def __init__(self, encoder: Encoder, method: Method, *, operands: bool, seed: int, ends: bool = True) -> None:
        self.encoder = encoder
        self.plan = Plan.of(method, encoder.shape)
        self._operands = operands
        self._seed = seed
        self._ends = ends
        self._pass: ForwardPass | None = None
        self.continuation: Continuation | None = None
        self.decoding = False

    @property
    def running(self) -> ForwardPass:
        """The forward pass that runs, or the last one that ran."""
        assert self._pass is not None
        return self._pass

    def forget(self) -> None:
        """The next hidden states that enter the first layer begin a new forward pass."""
        self._pass = None

    def start(self, valid: Tensor, **facts: Any) -> None:
        """Begin a forward pass over the live tokens `valid` [B, N]; `facts` are further arguments of `ForwardPass`."""
        self._pass = ForwardPass(
            self.plan,
            valid,
            seed=self._seed,
            keep_operands=self._operands,
            causal=self.encoder.causal,
            probe=self._probe,
            **facts,
        )

    def install(self, undo: ExitStack) -> None:
        """Put the hooks in; `undo` takes them out."""
        base: Any = self.encoder.base
        previous = base.config._attn_implementation
        check_attention(previous)
        name = unused_name()
        # A mask function of the same name, or transformers would drop the padding mask without a word.
        registered(undo, AttentionMaskInterface, name, AttentionMaskInterface._global_mapping[previous])
        registered(undo, AttentionInterface, name, self._attention_function(previous))
        undo.callback(setattr, base.config, "_attn_implementation_internal", previous)
        base.set_attn_implementation(name)
        for index, layer in enumerate(self.encoder.layers):
            if layer.attention is None:
                # The residual is added inside the layer, where no hook reaches.
                vars(layer.layer)["forward"] = functools.partial(self._pre_norm_forward, index)
                undo.callback(vars(layer.layer).pop, "forward")
                continue
            if index == 0:
                undo.callback(layer.layer.register_forward_pre_hook(self._before_layers).remove)
            undo.callback(layer.attention.register_forward_hook(self._before_ffn).remove)
            undo.callback(layer.layer.register_forward_hook(functools.partial(self._after_layer, index)).remove)

    def _before_layers(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._entered(args[0]), *args[1:])

    def _before_ffn(self, module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Any]) -> tuple[Any, ...]:
        return (self.running.before_ffn(output[0]), *output[1:])

    def _after_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Any, ...]
    ) -> Tensor | tuple[Any, ...]:
        if isinstance(output, tuple):  # T5 hands its position bias from layer to layer
            return (self._left(index, output[0]), *output[1:])
        return self._left(index, output)

    def _pre_norm_forward(
        self, index: int, hidden_states: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> Tensor:
        """The forward pass of a pre-LN layer with the steps in it; equal to the layer's own to the bit without them."""
        if self.decoding:
            return self._decoding_forward(index, hidden_states, attention_mask, **others)
        layer = self.encoder.layers[index]
        assert layer.norm_attention is not None
        assert layer.norm_ffn is not None
        assert layer.ffn is not None
        dropout = getattr(layer.layer, "dropout", nn.Identity())
        if index == 0:
            hidden_states = self._entered(hidden_states)
        if self.encoder.rotary is not None and self.running.reduced:
            ids = self.running.position_ids
            others |= {"position_ids": ids, "position_embeddings": self.encoder.rotary(hidden_states, position_ids=ids)}
        normed = layer.norm_attention(hidden_states)
        attended = layer.self_attention(hidden_states=normed, attention_mask=attention_mask, **others)[0]
        hidden_states = self.running.before_ffn(dropout(attended) + hidden_states)
        hidden_states = dropout(layer.ffn(layer.norm_ffn(hidden_states))) + hidden_states
        return self._left(index, hidden_states)

    def _decoding_forward(
        self, index: int, hidden_states: Tensor, attention_mask: Tensor | None, **others: Any
    ) -> Tensor:
        """The layer's own forward pass, at the positions that its part of the prompt leaves free."""
        layer, continuation = self.encoder.layers[index], self.continuation
        assert continuation is not None
        ids = continuation.position_ids(index, hidden_states.shape[1])
        if ids is not None and self.encoder.rotary is not None:
            others |= {"position_ids": ids, "position_embeddings": self.encoder.rotary(hidden_states, position_ids=ids)}
        forward: Callable[..., Tensor] = type(layer.layer).forward
        return forward(layer.layer, hidden_states, attention_mask=attention_mask, **others)

    def _entered(self, hidden: Tensor) -> Tensor:
        """What goes into the first layer; an image encoder knows only here how many tokens it has."""
        if self._pass is None:
            self.start(torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device))
        return self.running.at_boundary(Site.INPUT, hidden)

    def _left(self, index: int, hidden: Tensor) -> Tensor:
        """What goes out of layer `index`."""
        hidden = self.running.after_layer(hidden)
        if self._ends and index == len(self.encoder.layers) - 1:
            hidden = self.running.at_boundary(Site.OUTPUT, hidden)
            hidden = self.running.at_boundary(Site.PROJECTED, hidden)
        return hidden

    def _probe(self, signal: Signal, layer: int, hidden: Tensor, position_ids: Tensor) -> Tensor:
        """What the last normalisation, or the projections of the layer after `layer`, make of `hidden` [B, N, C]."""
        encoder = self.encoder
        if signal is Signal.FINAL_HIDDEN:
            final: Tensor = hidden if encoder.final_norm is None else encoder.final_norm(hidden)
            return final
        following = encoder.layers[layer + 1]
        is_query = signal in (Signal.NEXT_QUERY, Signal.NEXT_ROTATED_QUERY)
        heads = _projected(following, hidden, is_query, encoder.shape.head_dim)
        if signal in (Signal.NEXT_ROTATED_QUERY, Signal.NEXT_ROTATED_KEY) and encoder.rotary is not None:
            cosine, sine = encoder.rotary(hidden, position_ids=position_ids)
            heads = sys.modules[type(following.self_attention).__module__].apply_rotary_pos_emb(
                heads, heads, cosine, sine
            )[0]
        return expanded(heads, encoder.shape.heads)

    def _attention_function(self, previous: str) -> Callable[..., tuple[Tensor, None]]:
        """What transformers calls in place of its attention; `previous` names the implementation it replaces."""
        numbers = {id(layer.self_attention): index for index, layer in enumerate(self.encoder.layers)}
        causal = self.encoder.causal

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

            def kernel(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, bias: Tensor | None) -> Tensor:
                mask = attention_mask if valid is None else _mask(previous, valid, query.dtype, causal)
                function = attention_kernel(previous, module)
                more = others if bias is None else others | {"position_bias": bias}
                return function(module, query, key, value, mask, scaling=factor, dropout=dropout, **more)[0]

            continuation, number = self.continuation, numbers[id(module)]
            if continuation is not None and self.decoding:
                own = functools.partial(kernel, query, key, value, None, None)
                return continuation.attention(number, query, key, value, own, scaling=factor), None
            output = self.running.attention(
                number,
                query,
                key,
                value,
                kernel,
                scaling=factor,
                dropout=dropout,
                position_bias=others.get("position_bias"),
            )
            if continuation is not None:
                continuation.fill(number, self.running)
            return output, None

        return attention


def _projected(layer: EncoderLayer, hidden: Tensor, is_query: bool, head_dim: int) -> Tensor:
    """Queries [B, H, N, d] or keys [B, KV, N, d] of `hidden` [B, N, C], before rotation."""
    normed = hidden if layer.norm_attention is None else layer.norm_attention(hidden)
    projected = (layer.query if is_query else layer.key)(normed)
    heads: Tensor = projected.unflatten(-1, (-1, head_dim))
    norm = getattr(layer.self_attention, "q_norm" if is_query else "k_norm", None)
    return (heads if norm is None else norm(heads)).transpose(1, 2)


def _mask(implementation: str, valid: Tensor, dtype: torch.dtype, causal: bool) -> Tensor | None:
    """The mask in the form `implementation` takes, for the tokens that are left; None where the kernel needs none."""
    if bool(valid.all()) and not (causal and implementation == "eager"):
        return None  # the fused kernel is causal by itself where the module is
    batch, tokens = valid.shape
    allowed = valid[:, None, None, :].expand(batch, 1, tokens, tokens)
    if causal:
        allowed = allowed & torch.ones((tokens, tokens), dtype=torch.bool, device=valid.device).tril()
    if implementation == "sdpa":
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=valid.device).masked_fill(~allowed, torch.finfo(dtype).min)
