"""What is left of each input token, layer by layer, one letter a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from topsieve.prompt import Compressed
from topsieve.record import Record
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Site

# One letter a token and layer in `survival`.
ALONE, SHARED, GONE = "A", "S", "."

# Letters of a label.
LABEL = 16


def survival(record: Record, sequence: int) -> list[str]:
    """What is left of each input token of `sequence` where each layer begins: one text a layer, one letter a token.

    `ALONE` is a slot of its own, `SHARED` a slot made of several tokens, `GONE` no slot at all.
    """
    tokens = int(record.layers[0].attention_tokens[sequence])
    whole: Reduction | None = None
    layers = []
    for layer in record.layers:
        layers.append(ALONE * tokens if whole is None else _letters(whole.sources()[sequence, :, :tokens]))
        for decision in layer.decisions:
            if decision.step.site is not Site.HEAD:
                whole = decision.reduction if whole is None else whole.then(decision.reduction)
    return layers


def _letters(made_of: Tensor) -> str:
    """`made_of` bool [slots, tokens] as one letter a token."""
    alone = made_of[made_of.sum(-1) == 1].any(0)
    somewhere = made_of.any(0)
    return "".join(
        ALONE if own else SHARED if left else GONE for own, left in zip(alone.tolist(), somewhere.tolist(), strict=True)
    )


def token_counts(record: Record) -> dict[str, object]:
    """Live tokens and heads a layer, summed over the sequences, with the count of these."""
    return {
        "sequences": record.sequences,
        "attention": [int(layer.attention_tokens.sum()) for layer in record.layers],
        "ffn": [int(layer.ffn_tokens.sum()) for layer in record.layers],
        "heads": [int(layer.heads.sum()) for layer in record.layers],
    }


def unit_words(prompt: Compressed) -> tuple[str, ...]:
    """The units of a shortened prompt as labels: a sentence is cut to its beginning."""
    return tuple(unit if len(unit) <= LABEL else unit[: LABEL - 1] + "…" for unit in map(str.strip, prompt.units))


def unit_survival(prompt: Compressed, layers: int) -> tuple[str, ...]:
    """What is left of each unit of a shortened prompt: the same text for each of the model's `layers`."""
    kept = set(prompt.kept)
    return ("".join(ALONE if number in kept else GONE for number in range(len(prompt.units))),) * layers


def prompt_facts(prompts: Sequence[Compressed], scorer_flops: int, tokens: Sequence[int]) -> Mapping[str, int]:
    """What became of prompts: their units before and after, the model's tokens, and what the scorer cost."""
    return {
        "units": sum(len(prompt.units) for prompt in prompts),
        "units_kept": sum(len(prompt.kept) for prompt in prompts),
        "tokens_read": sum(tokens),
        "scorer_flops": scorer_flops,
    }
