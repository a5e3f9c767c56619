"""What progressive quantisation costs in accuracy: golden attention against float64 by bit plan, on MiniLM's own operands.

`python -m topsieve.bit_plans docs/bit-plans.md` writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import topsieve
from topsieve.corpus import python_reference
from topsieve.pretrained import load_pretrained
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.files import written_whole
from topsieve_sim.golden.attention import attention, quantise_operands
from topsieve_sim.golden.numbers import LOG2_E, symmetric_scale
from topsieve_sim.golden.progressive import integer_threshold

PLANS = ((4, 4), (6, 4), (8, 4))
THRESHOLD = 0.1
PARAGRAPHS = 12
CAPACITY = 512

Floats = NDArray[np.float64]


class Operands(NamedTuple):
    """Of one layer and sequence, each [heads, tokens, head_dim]; queries before the scale."""

    query: Floats
    key: Floats
    value: Floats


@dataclass(frozen=True)
class PassError:
    """Relative errors (2-norm over all rows) of one way to compute, and what noise alone predicts.

    probability, output : of probabilities and of attention outputs.
    predicted : upper bound of `probability` to first order in the noise of rounding; `noise_bound`.
    """

    probability: float
    output: float
    predicted: float


@dataclass(frozen=True)
class PlanError:
    """One bit plan: MSB planes alone, progressive, whole keys; the share of rows that are computed twice."""

    msb: PassError
    progressive: PassError
    whole: PassError
    repeated: float


def minilm_operands(paragraphs: int = PARAGRAPHS) -> list[Operands]:
    """Queries, keys and values of every layer of MiniLM over paragraphs of English, from a dense forward pass."""
    pretrained = load_pretrained()
    batch = pretrained.batch(pretrained.tokens(python_reference(paragraphs).paragraphs))
    with torch.no_grad(), topsieve.reduce(pretrained.model, "dense", operands=True) as reduced:
        pretrained.model(**batch)
    found = []
    for layer in reduced.record.layers:
        assert layer.valid is not None
        assert layer.query is not None
        assert layer.key is not None
        assert layer.value is not None
        for sequence, valid in enumerate(layer.valid):
            parts = (part[sequence][:, valid].double().numpy() for part in (layer.query, layer.key, layer.value))
            found.append(Operands(*parts))
    return found


def exact_probabilities(operands: Operands) -> Floats:
    """Softmax of the scaled scores in float64, [heads, queries, keys]."""
    score = operands.query @ operands.key.transpose(0, 2, 1) / np.sqrt(operands.query.shape[-1])
    exact = np.exp(score - score.max(axis=-1, keepdims=True))
    return exact / exact.sum(axis=-1, keepdims=True)


def score_variance(operands: Operands, formats: NumberFormats, dropped_bits: int) -> Floats:
    """Variance of a row's score errors in natural-log units, [heads, queries], where roundings are independent and uniform.

    A rounding to a step has variance step^2 / 12; reading `dropped_bits` LSBs as zero is a rounding to a step so much
    wider, whose mean shifts a row's scores alike and cancels in the softmax.
    """
    query, key, _ = operands
    query_step, key_step = (
        symmetric_scale(part, bits, (1, 2)) for part, bits in ((query, formats.query_bits), (key, formats.key_bits))
    )
    from_key = (query**2).sum(-1) * (key_step[..., 0] * 2.0**dropped_bits) ** 2
    from_query = (key**2).sum(-1).mean(-1, keepdims=True) * query_step[..., 0] ** 2
    from_score = (2.0**-formats.score_fraction_bits / LOG2_E) ** 2
    return (from_key + from_query) / query.shape[-1] / 12 + from_score / 12


def noise_bound(exact: Floats, variance: Floats, formats: NumberFormats) -> Floats:
    """Bound of each row's expected squared probability error, [heads, queries], to first order in score errors e.

    A probability moves by p_i (e_i - sum of p_j e_j), which has the variance of e times p_i^2 (1 - 2 p_i + sum of p_j^2).
    Each probability is then within one of its steps of the exact softmax of the scores (`docs/numbers.md`).
    """
    squares = (exact**2).sum(-1)
    moved = squares - 2 * (exact**3).sum(-1) + squares**2
    return variance * moved + exact.shape[-1] * 4.0**-formats.probability_bits


def measure(plan: tuple[int, int], operands: Sequence[Operands], threshold: float = THRESHOLD) -> PlanError:
    """The errors of `plan` (bits of both key planes) over all of `operands`; the other formats are the default ones."""
    formats = NumberFormats(key_msb_bits=plan[0], key_lsb_bits=plan[1])
    # A threshold of one step keeps every first pass; 0 is one pass with whole keys.
    limits = (1, integer_threshold(threshold, formats), 0)
    squares = np.zeros((3, 3))
    sizes = np.zeros(2)
    repeated, rows = 0, 0
    for part in operands:
        integer = quantise_operands(*part, formats)
        exact = exact_probabilities(part)
        exact_output = exact @ part.value
        sizes += (exact**2).sum(), (exact_output**2).sum()
        bounds = [noise_bound(exact, score_variance(part, formats, bits), formats) for bits in (plan[1], 0)]
        for place, limit in enumerate(limits):
            result = attention(integer, formats, CAPACITY, limit)
            probability = result.probability / 2.0**formats.probability_bits
            output = result.output * integer.value_scale[:, None, None]
            again = result.lsb_rows if limit else np.ones(result.lsb_rows.shape, np.bool_)
            squares[place] += (
                ((probability - exact) ** 2).sum(),
                ((output - exact_output) ** 2).sum(),
                np.where(again, bounds[1], bounds[0]).sum(),
            )
            if place == 1:
                repeated += int(again.sum())
                rows += again.size
    errors = np.sqrt(squares / np.array([sizes[0], sizes[1], sizes[0]]))
    msb, progressive, whole = (PassError(*map(float, line)) for line in errors)
    return PlanError(msb, progressive, whole, repeated / rows)


def table(errors: dict[tuple[int, int], PlanError]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| key planes | rows with LSBs | probabilities: MSBs only | progressive | whole keys | outputs: MSBs only "
        "| progressive | whole keys |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (msb, lsb), error in errors.items():
        passes = (error.msb, error.progressive, error.whole)
        cells = [f"{msb}+{lsb}", f"{error.repeated:.0%}"]
        cells += [f"{one.probability:.2%} (≤ {one.predicted:.2%})" for one in passes]
        cells += [f"{one.output:.2%}" for one in passes]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


PAGE = """# Bit plans

What the planes of a key cost in accuracy: the golden model of the attention unit against float64 attention on the
operands of a real model. {parts} attention layers: all layers of MiniLM over {paragraphs} paragraphs of English, 12 heads of
32 dimensions. Queries and values have 12 bits, a row is computed again with LSBs when its largest probability is below
{threshold}. `make bit-plans` writes this page.

{table}

Relative errors, 2-norms over all rows of all layers and heads. In brackets: the error that independent uniform roundings of
queries, keys and scores are expected to cause to first order, and one step of each probability
(`topsieve.bit_plans.noise_bound`); the tests hold the measurement to it.

How to read it:

* Rounding explains the error: reading the LSBs as zero costs what a key step so much wider costs, 4 times as much for each
  2 bits, and nothing else is added.
* The second pass changes little here. A row is repeated when its probabilities are spread, and such rows hardly count in these
  norms; rows with a high probability are taken from the MSBs, and their error stays. What protects the result is the
  width of the MSB plane, not the threshold. Rows near uniform do gain: compare the flat rows of [numbers.md](numbers.md).
* With 10 bits or more, whole keys end near the error of the other roundings; more key bits buy little.
"""


def write_page(path: Path, paragraphs: int = PARAGRAPHS) -> None:
    """Measure every plan and write the page."""
    operands = minilm_operands(paragraphs)
    errors = {plan: measure(plan, operands) for plan in PLANS}
    text = PAGE.format(parts=len(operands), paragraphs=paragraphs, threshold=THRESHOLD, table="\n".join(table(errors)))
    with written_whole(path) as stream:
        stream.write(text)


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
