"""What the library itself costs on a CPU, and what a method saves there: ratios measured side by side.

`python -m topsieve.bench`, part of `make bench`. BERT-base shapes with random weights: time does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

import topsieve

# Of BERT-base, and the tokens of a SQuAD input.
TOKENS = 384
WIDTH, LAYERS, HEADS, HIDDEN = 768, 12, 12, 3072
REPEATS = 5
# Of the model alone. What is asked of SpAtten is that it pays on a CPU too, whose attention is a fused kernel.
DENSE_AIM, SPATTEN_AIM = 1.03, 1.0


@dataclass(frozen=True)
class Comparison:
    """CPU seconds of a forward pass: the median of each way to run it, and of their ratios to the first, round by round."""

    seconds: Mapping[str, float]
    ratio: Mapping[str, float]


def model(width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS, hidden: int = HIDDEN) -> Any:
    """A BERT with random weights and fused attention."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    make_config: Any = BertConfig
    config = make_config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
        attn_implementation="sdpa",
    )
    bert: Any = BertModel(config, add_pooling_layer=False)
    return bert.eval()


def side_by_side(ways: Mapping[str, Callable[[], object]], repeats: int) -> Comparison:
    """Time `ways` in turns, `repeats` rounds after one that is not counted.

    CPU time, and ratios within a round: on a busy machine wall time says more about its other users.
    """
    rounds: list[dict[str, float]] = []
    for number in range(repeats + 1):
        seconds = {}
        # Every other round backwards, so that what drifts within a round favours none.
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            start = time.process_time()
            ways[name]()
            seconds[name] = time.process_time() - start
        rounds.append(seconds)
    first, counted = next(iter(ways)), rounds[1:]
    return Comparison(
        {name: statistics.median(one[name] for one in counted) for name in ways},
        {name: statistics.median(one[name] / one[first] for one in counted) for name in ways},
    )


def library_overhead(bert: Any, tokens: int, repeats: int) -> Comparison:
    """The plain model, the same under `dense`, and under SpAtten with half of the tokens kept."""
    batch = {
        "input_ids": torch.randint(0, bert.config.vocab_size, (1, tokens)),
        "attention_mask": torch.ones((1, tokens), dtype=torch.int64),
    }

    def run(method: str | None, **settings: Any) -> Callable[[], object]:
        def once() -> None:
            with torch.inference_mode(), nullcontext() if method is None else topsieve.reduce(bert, method, **settings):
                bert(**batch)

        return once

    return side_by_side({"plain": run(None), "dense": run("dense"), "spatten": run("spatten", keep=0.5)}, repeats)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = library_overhead(model(), TOKENS, given.repeats)
    print(f"BERT-base shapes, {TOKENS} tokens, fused attention, one CPU thread, medians of {given.repeats} rounds")
    for name, label, aim in (
        ("plain", "the model alone", ""),
        ("dense", "under `dense`: the library's own cost", f" (aim: under {DENSE_AIM})"),
        ("spatten", "under `spatten`, keep 0.5", f" (aim: under {SPATTEN_AIM})"),
    ):
        print(f"  {label:40} {found.seconds[name]:7.3f} s CPU   {found.ratio[name]:6.3f} of the model alone{aim}")


if __name__ == "__main__":
    main()
