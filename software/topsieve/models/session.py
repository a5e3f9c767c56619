"""`reduce`: run a Hugging Face model under a reduction method, and leave it as it was."""

from __future__ import annotations

import dataclasses
import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from topsieve.methods import build
from topsieve.models.families import TEXT_ENCODERS, Multimodal, check_attention, parts_of
from topsieve.models.forward import ForwardPass
from topsieve.models.hosting import Entered
from topsieve.models.multimodal import ReducedMultimodal
from topsieve.models.tower import ReducedTower
from topsieve.record import Record
from topsieve.reduction.roles import Method
from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve.cache.session import CachedModel
    from topsieve.tuning.session import TunedModel


class ReducedModel(Entered):
    """A model under a method, for the length of a `with` block. `topsieve.reduce` makes it.

    A model of vision and language decodes, too: its prompt is reduced, and the passes behind it, of `generate` or with
    `past_key_values` given, go on with the cache that this leaves, which is of use in the block only.

    After a forward pass, until the next one (those behind a prompt change the record only):

    record : `Record`, what happened layer by layer.
    valid : bool [B, K], live tokens of the last hidden states [B, K, C].
    positions : int64 [B, K], columns of the input batch they stand at; -1 for padding and merged tokens.
    size : float [B, K], input tokens each stands for; 0 for padding. In a model of vision and language, tokens that
        entered the language model.
    """

    def __init__(
        self, model: object, method: Method, *, operands: bool = False, seed: int = 0, units: Tensor | None = None
    ) -> None:
        parts = parts_of(model)
        if units is not None and (isinstance(parts, Multimodal) or parts.shape.family not in TEXT_ENCODERS):
            raise InputError("only encoders of text take units", field="units", allowed="none")
        self._units = units
        self._method = method
        self._whole: ReducedMultimodal | None = None
        if isinstance(parts, Multimodal):
            self._whole = ReducedMultimodal(parts, method, operands=operands, seed=seed)
            self._tower = self._whole.language
        else:
            self._tower = ReducedTower(parts, method, operands=operands, seed=seed)
        self._base: Any = parts.base
        self._done = False

    @property
    def method(self) -> Method:
        """The method."""
        return self._method

    @property
    def record(self) -> Record:
        """What happened in the last forward pass."""
        finished = self._finished()
        return finished.record() if self._whole is None else self._whole.record()

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

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values that a model of vision and language keeps for decoding; 0 where it keeps none."""
        self._finished()
        return 0 if self._whole is None else self._whole.held_bytes

    def report(self) -> str:
        """Tokens of each layer and FLOPs of the last forward pass, as text."""
        from topsieve.lowering import describe

        return describe(self.record)

    def __enter__(self) -> Self:
        check_attention(self._tower.encoder.base.config._attn_implementation)
        if self._undo is not None:
            raise InputError("this reduction is already in use", field="reduce")
        with ExitStack() as undo:
            (self._tower if self._whole is None else self._whole).install(undo)
            undo.callback(self._base.register_forward_pre_hook(self._start, with_kwargs=True).remove)
            undo.callback(self._base.register_forward_hook(self._stop).remove)
            self._undo = undo.pop_all()
        return self

    def _finished(self) -> ForwardPass:
        if not self._done:
            raise InputError("no forward pass has finished yet", field="reduce")
        return self._tower.running

    def _start(self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(base.forward).bind(*args, **kwargs).arguments
        given = given | given.pop("kwargs", {})
        if given.get("output_attentions"):
            raise InputError("is not available under a reduction", field="output_attentions", allowed="False")
        self._done = False
        if self._whole is not None:
            self._whole.start(given)
        elif self._tower.encoder.shape.family in TEXT_ENCODERS:
            if given.get("encoder_hidden_states") is not None or given.get("past_key_values") is not None:
                raise InputError("only an encoder can be reduced", field="encoder_hidden_states, past_key_values")
            live = _live_tokens(given)
            if self._units is not None and self._units.shape != live.shape:
                raise InputError(
                    "wrong shape", field="units", value=tuple(self._units.shape), allowed=f"{tuple(live.shape)}"
                )
            self._tower.start(live, units=self._units)
        else:
            # An image encoder knows only behind its embeddings how many tokens it has.
            self._tower.forget()
            mask = given.get("attention_mask")
            if mask is not None:
                self._tower.start(mask.to(torch.bool))

    def _stop(self, *_: object) -> None:
        if self._whole is not None:
            self._whole.end()
        self._done = True


def reduce(
    model: PreTrainedModel,
    method: str | Method,
    *,
    keep: float | None = None,
    operands: bool = False,
    seed: int = 0,
    units: Tensor | None = None,
    **parameters: Any,
) -> ReducedModel | CachedModel | TunedModel:
    """Run `model` under `method` inside a `with` block; outside of it the model is as it was.

    ```python
    with topsieve.reduce(model, "spatten", keep=0.5) as r:
        out = model(**batch)
    embedding = topsieve.mean_pool(out.last_hidden_state, r.valid, r.size)
    ```

    Parameters
    ----------
    model : of Hugging Face transformers: a text encoder (BERT family, T5EncoderModel), an image encoder (ViT, CLIP), or a
        decoder (GPT-2, Llama, Mistral, Qwen2, Qwen3), alone or inside a task model; or a LLaVA. A decoder's cache is what
        is reduced, that of a LLaVA by methods of the cache too: `generate` works.
    method : a method, or the text of one as `topsieve.methods.build` reads it: `spatten`, `spatten:value_keep=0.3`.
    keep : share of the tokens that live after the last step, in (0, 1].
    operands : keep query, key and value of every layer in the record, for traces with operands.
    seed : of random methods.
    units : int64 [B, N], for methods that merge units of the text (`topsieve.code_units`): the unit of each token of the
        batches to come. Encoders of text only.
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
    # The cache package stands on this one.
    from topsieve.cache.families import holds_decoder, is_decoder
    from topsieve.cache.session import acts_on_cache_only, cached
    from topsieve.chunks.roles import acts_on_chunks
    from topsieve.prompt.roles import acts_on_prompts
    from topsieve.tuning.roles import acts_on_tuning
    from topsieve.tuning.session import tuned

    if acts_on_tuning(changed):
        return tuned(model, changed)
    if acts_on_chunks(changed):
        raise InputError(
            "needs the chunks of a prompt",
            field="method",
            value=changed.name,
            allowed="topsieve.chunks.reader.ChunkReader",
        )
    if is_decoder(model) or (acts_on_cache_only(changed) and holds_decoder(model)):
        if units is not None:
            raise InputError("only encoders of text take units", field="units", allowed="none")
        return cached(model, changed, operands=operands, seed=seed)
    if acts_on_cache_only(changed):
        raise InputError(f"{changed.name} acts on the cache of decoders", field="model", value=type(model).__name__)
    if acts_on_prompts(changed):
        raise InputError(
            "shortens prompts and does nothing inside a model",
            field="method",
            value=changed.name,
            allowed="topsieve.prompt.compress",
        )
    return ReducedModel(model, changed, operands=operands, seed=seed, units=units)


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
