"""`compress`: shorten a prompt by a method."""

from __future__ import annotations

from typing import Any

from topsieve.methods import build
from topsieve.prompt.roles import Compressed, Prompt, PromptMethod, Run, TokenCount
from topsieve.reduction.roles import BitPlan
from topsieve_sim.errors import InputError


def compress(
    method: str | Any,
    prompt: str | Prompt,
    *,
    keep: float | None = None,
    scorer: Any = None,
    operands: bool = False,
    bits: BitPlan | None = None,
    count: TokenCount | None = None,
) -> Compressed:
    """Shorten `prompt`.

    ```python
    short = compress("llmlingua-2", text, keep=0.5)
    print(short.text, short.work.flops)
    ```

    Parameters
    ----------
    method : a method, or the text of one as `topsieve.methods.build` reads it.
    prompt : a text, or contexts with a question.
    keep : share of the units to keep, in (0, 1], where the method takes one and its text does not say.
    scorer : what gives the scores; the method's own choice from this machine where absent (see `docs/text-methods.md`).
    operands, bits : of the scorer's trace, as of `topsieve.lower`.
    count : tokens that the model behind the method makes of a text; the scorer's own tokens where absent.

    Raises
    ------
    InputError
        unknown method or wrong parameters; the method does not shorten prompts; the prompt has no context, or a part of
        it is longer than the scorer takes.
    """
    chosen = build(method, keep=keep) if isinstance(method, str) else method
    if not isinstance(chosen, PromptMethod):
        raise InputError("the method does not shorten prompts", field="method", value=chosen.name)
    asked = Prompt((prompt,)) if isinstance(prompt, str) else prompt
    if not asked.contexts:
        raise InputError("holds no context", field="prompt", allowed="at least one text")
    given = chosen.scorer() if scorer is None else scorer
    return chosen.prompt(asked, given, Run(operands, bits, count))
