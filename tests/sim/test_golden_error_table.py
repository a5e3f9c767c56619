"""The error table of `docs/numbers.md` is what the golden model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topsieve_sim.arch import NumberFormats
from topsieve_sim.golden.attention import attention, quantise_operands
from topsieve_sim.golden.progressive import integer_threshold

DOCUMENT = Path(__file__).parents[2] / "docs" / "numbers.md"
PLANS = ((4, 4), (6, 4), (8, 4))
GAINS = (("flat", 0.5), ("medium", 1.5), ("peaked", 4.0))
HEADS, QUERIES, KEYS, HEAD_DIM = 4, 64, 256, 64


def error_table() -> list[str]:
    """One line of Markdown for each bit plan and kind of row, from normal operands drawn with seed 0."""
    lines = []
    for msb, lsb in PLANS:
        formats = NumberFormats(key_msb_bits=msb, key_lsb_bits=lsb)
        threshold = integer_threshold(0.1, formats)
        for name, gain in GAINS:
            rng = np.random.default_rng(0)
            query = rng.standard_normal((HEADS, QUERIES, HEAD_DIM)) * gain
            key, value = rng.standard_normal((2, HEADS, KEYS, HEAD_DIM))
            integer = quantise_operands(query, key, value, formats)
            score = query @ key.transpose(0, 2, 1) / np.sqrt(HEAD_DIM)
            exact = np.exp(score - score.max(axis=-1, keepdims=True))
            exact /= exact.sum(axis=-1, keepdims=True)
            cells = [f"{msb}+{lsb}", name, f"{exact.max(axis=-1).mean():.2f}"]
            # A threshold of one step keeps every first pass; 0 is one pass with whole keys.
            for limit in (1, threshold, 0):
                result = attention(integer, formats, KEYS, limit)
                output = result.output * integer.value_scale[:, None, None]
                if limit == threshold:
                    cells.append(f"{100 * result.lsb_rows.mean():.0f} %")
                cells.append(f"{100 * np.linalg.norm(output - exact @ value) / np.linalg.norm(exact @ value):.2f} %")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def test_the_error_table_is_measured() -> None:
    written = DOCUMENT.read_text().splitlines()
    assert [line for line in error_table() if line not in written] == []
