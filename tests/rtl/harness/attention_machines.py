"""Random small machines for the units of the attention pipeline: shapes, formats, buffering."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from topsieve_sim.arch import AcceleratorConfig, load_config

TINY = load_config("tiny")


def draw_machine(seed: int) -> AcceleratorConfig:
    """A small valid machine without fetchers; two in three have formats of their own."""
    generator = np.random.default_rng(seed)
    while True:
        fields = TINY.model_dump() | _draw_shape(generator)
        if generator.random() < 2 / 3:
            fields["formats"] = _draw_formats(generator)
        try:
            return AcceleratorConfig.model_validate(fields)
        except ValidationError:
            # The validator knows which widths and lanes go together; nothing here repeats it.
            continue


def _draw_shape(generator: np.random.Generator) -> dict[str, object]:
    lanes = int(generator.choice([1, 2, 3, 4, 8]))

    def array() -> dict[str, int]:
        split = int(generator.choice([1, 2, 3, 4, 8]))
        return {"multipliers": split * int(generator.choice([1, 2, 3, 4, 8, 16])), "lane_split": split}

    return {
        "name": "drawn",
        "capacity": int(generator.integers(2, 33)),
        "max_head_dim": int(generator.integers(1, 13)),
        "double_buffer": bool(generator.integers(2)),
        "dot_product": array(),
        "weighted_sum": array(),
        "softmax": {"lanes": lanes},
        "topk": {"parallelism": lanes},
        "importance": {"heads": int(generator.integers(1, 9))},
        # Fetchers ask for one lane split in both arrays; the units do not.
        "memory": TINY.memory.model_dump() | {"model": "ideal"},
    }


def _draw_formats(generator: np.random.Generator) -> dict[str, int]:
    def between(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    return {
        "query_bits": between(2, 12),
        "key_msb_bits": between(2, 10),
        "key_lsb_bits": between(0, 5),
        "value_bits": between(2, 12),
        "score_bits": between(6, 18),
        "score_fraction_bits": between(1, 10),
        "exponential_bits": between(6, 18),
        "exponential_table_bits": between(1, 6),
        "reciprocal_bits": between(6, 18),
        "reciprocal_table_bits": between(1, 7),
        "probability_bits": between(4, 16),
        "output_bits": between(4, 18),
        "token_importance_bits": between(8, 24),
        "head_importance_bits": between(8, 24),
    }
