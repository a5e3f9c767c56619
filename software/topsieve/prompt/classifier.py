"""`KeepClassifier`: an encoder with a head of two classes a token, which says what of a text should stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.pretrained import Pretrained, load_pretrained
from topsieve.prompt.roles import Run
from topsieve.prompt.words import Piece, PieceRule
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import Projection

CHECKPOINT = Path(__file__).parent / "checkpoint"
HEADS, TRAINING = "heads.safetensors", "training.json"
TRAINING_COMMAND = "python -m topsieve.prompt.train"

# The model and name of the tokens that the published code puts around a text, whatever the tokenizer calls its own.
LITERAL_ENDS = ("[CLS]", "[SEP]")


@dataclass(frozen=True)
class KeepClassifier:
    """An encoder of the BERT family with a map from its last hidden state to the scores of "drop" and "keep".

    Parameters
    ----------
    pretrained : encoder and tokenizer.
    head : float [..., C] to [..., 2].
    rule : how the tokenizer marks pieces.
    ends : "literal" puts the strings [CLS] and [SEP] around a text as the published code does, which are unknown tokens
        where the vocabulary lacks them; "own" the tokenizer's own tokens.
    """

    pretrained: Pretrained
    head: nn.Module
    rule: PieceRule = PieceRule.BERT
    ends: Literal["literal", "own"] = "literal"

    @property
    def chunk_tokens(self) -> int:
        """Pieces that a chunk may hold beside its two ends."""
        return self.pretrained.max_tokens - 2

    @property
    def specials(self) -> frozenset[str]:
        """Strings of the special tokens."""
        return frozenset(self.pretrained.tokenizer.special_tokens_map.values())

    def pieces(self, text: str) -> list[Piece]:
        """The word pieces of `text`, no ends."""
        given = self.pretrained.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        names = self.pretrained.tokenizer.convert_ids_to_tokens(given["input_ids"])
        return [Piece(name, start, end) for name, (start, end) in zip(names, given["offset_mapping"], strict=True)]

    def text(self, pieces: list[str]) -> str:
        """`pieces` as the tokenizer joins them."""
        joined: str = self.pretrained.tokenizer.convert_tokens_to_string(pieces)
        return joined

    def probabilities(self, pieces: list[str], run: Run) -> tuple[NDArray[np.float32], Trace]:
        """Probability of "keep", float32 [n], of each piece, and what it took."""
        tokenizer = self.pretrained.tokenizer
        ends = LITERAL_ENDS if self.ends == "literal" else (tokenizer.cls_token, tokenizer.sep_token)
        limit = self.pretrained.max_tokens
        # A chunk may be one piece too long; it then loses its closing end.
        ids = tokenizer.convert_tokens_to_ids([ends[0], *pieces, ends[1]])[:limit]
        hidden, trace = encoded(self.pretrained, ids, run)
        logits: Tensor = self.head(hidden[0])
        found = logits.softmax(-1)[1 : 1 + len(pieces), 1].to(torch.float32).cpu().numpy()
        width = hidden.shape[-1]
        head = Projection(layer=trace.layers - 1, tokens=len(ids), inputs=width, outputs=2, role="other")
        return found, replace(trace, ops=(*trace.ops, head))


def encoded(pretrained: Pretrained, ids: list[int], run: Run) -> tuple[Tensor, Trace]:
    """The last hidden state of one sequence, float [1, N, C], and the trace of the pass."""
    base = pretrained.model.base_model
    tokens = torch.tensor([ids], device=base.device)
    with torch.no_grad(), reduce(base, "dense", operands=run.operands) as dense:
        hidden: Tensor = base(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        trace = lower(dense.record, operands=run.operands, bits=run.bits)
    # A model's own idea of its name may be a folder on this machine.
    return hidden, replace(trace, model=pretrained.name)


def saved_heads(folder: Path = CHECKPOINT) -> dict[str, Tensor]:
    """The heads that come with this package for MiniLM, float32 by name.

    Raises
    ------
    InputError
        the checkpoint is missing or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / HEADS
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot load: {error}", source=str(path), allowed=f"what {TRAINING_COMMAND} writes"
        ) from error


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The linear map of these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.eval().requires_grad_(False)


def minilm_classifier(ends: Literal["literal", "own"] = "literal") -> Any:
    """MiniLM with the head of this package: see `topsieve.prompt.train` for what it learned."""
    heads = saved_heads()
    head = linear(heads["keep.weight"], heads["keep.bias"])
    return KeepClassifier(load_pretrained(), head, PieceRule.BERT, ends)
