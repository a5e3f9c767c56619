"""`byte-gpt` behind a prompt method: the text is shortened, then read whole.

What stands last in a prompt is the question: the last `TAIL` bytes of a window, from a blank on, or the `?K` of a recall
question. It is not shortened; what stands before it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topsieve.lowering import lower
from topsieve.methods import build
from topsieve.prompt import Compressed, Prompt, compress
from topsieve.prompt.lowering import joined
from topsieve.prompt.roles import PromptMethod
from topsieve.reduction.roles import BitPlan
from topsieve.subjects.decoding import Decoded, decode
from topsieve_sim.trace import Trace

TAIL = 32


@dataclass(frozen=True)
class Shortened:
    """A prompt after a method: what became of its context, and the bytes that the model reads."""

    compressed: Compressed
    content: bytes


def split(content: bytes, tail: int = TAIL) -> tuple[bytes, bytes]:
    """Context and question of a window: the question begins at a blank and has `tail` bytes or fewer."""
    place = content.find(b" ", len(content) - tail)
    return (content[:place], content[place:]) if place >= 0 else (content[:-tail], content[-tail:])


def shorten(
    method: PromptMethod,
    scorer: Any,
    parts: Sequence[tuple[bytes, bytes]],
    *,
    operands: bool = False,
    bits: BitPlan | None = None,
) -> list[Shortened]:
    """Each pair of context and question with its context shortened. The model's tokens are bytes."""
    found = []
    for context, question in parts:
        prompt = Prompt((context.decode("ascii"),), question.decode("ascii").strip())
        short = compress(method, prompt, scorer=scorer, operands=operands, bits=bits, count=len)
        found.append(Shortened(short, short.text.encode("ascii", "ignore") + question))
    return found


def decoded(model: Any, prompts: Sequence[Shortened], given: Tensor, bits: BitPlan) -> tuple[list[Decoded], Trace]:
    """Read each prompt and then the bytes `given` [B, T] one by one: what came out, and the trace with operands."""
    runs = [
        decode(model, build("dense"), rows([prompt.content]), given[number : number + 1], operands=True)
        for number, prompt in enumerate(prompts)
    ]
    trace = joined([lower(run.record, operands=True, bits=bits) for run in runs])
    assert trace is not None
    return runs, trace


def loss_behind(model: Any, prompts: Sequence[Shortened], following: Tensor) -> float:
    """Mean over prompts and bytes of -log of the probability of the bytes `following` [B, T] behind each prompt."""
    losses = []
    for prompt, target in zip(prompts, following, strict=True):
        read = torch.cat([rows([prompt.content])[0], target[:-1]])
        with torch.inference_mode():
            logits = model(input_ids=read.unsqueeze(0)).logits[0, len(prompt.content) - 1 :]
        losses.append(torch.nn.functional.cross_entropy(logits, target))
    return float(torch.stack(losses).double().mean())


def answers(model: Any, prompts: Sequence[Shortened]) -> Tensor:
    """int64 [B]: the most probable byte behind each prompt."""
    with torch.inference_mode():
        found = [int(model(input_ids=rows([prompt.content])).logits[0, -1].argmax()) for prompt in prompts]
    return torch.tensor(found)


def rows(contents: Sequence[bytes]) -> Tensor:
    """int64 [B, N] of texts of one length."""
    return torch.tensor([list(content) for content in contents])
