"""What ending keys early costs in accuracy and saves: golden attention and the machine on operands of real models.

`python -m topsieve.early_termination docs/early-termination.md` writes the page.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topsieve.bit_plans import Operands, exact_probabilities, minilm_operands
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import simulate
from topsieve_sim.files import written_whole
from topsieve_sim.golden.attention import attention, quantise_operands
from topsieve_sim.golden.early_termination import bound_rows, row_bounds
from topsieve_sim.golden.numbers import ScoreFactor
from topsieve_sim.trace import Trace

THRESHOLDS = (1 / 64, 1 / 256, 0.001, 1 / 4096)
PRESET_THRESHOLD = 0.001
TILE_KEYS = 128
PARAGRAPHS = 12
# Bytes of a prompt, bytes that are then decoded, prompts.
PROMPT, DECODED, PROMPTS = 480, 16, 4
SEED = 0


@dataclass(frozen=True)
class Ended:
    """One threshold on one set of operands.

    kept : share of keys that are left. output : relative error of attention outputs against float64, 2-norm over all rows.
    selected : the same where as many values a row are kept by local value selection instead.
    """

    kept: float
    output: float
    selected: float


def machine(threshold: float, tile_keys: int = 0) -> AcceleratorConfig:
    """The successor with another threshold."""
    return load_config("topsieve", [f"successor.termination_threshold={threshold}", f"successor.tile_keys={tile_keys}"])


def candidates(operands: Operands, config: AcceleratorConfig) -> NDArray[np.bool_]:
    """Keys that are left in each row, bool [heads, queries, keys]; every row is one that decoding could ask."""
    integer = quantise_operands(*operands, config.formats)
    found = []
    for head, (query, key) in enumerate(zip(integer.query, integer.key, strict=True)):
        factor = ScoreFactor(
            *(np.full(len(query), np.broadcast_to(part, integer.query.shape[0])[head]) for part in integer.factor)
        )
        low, width = row_bounds(query, key, factor, config.formats)
        found.append(bound_rows(low, width, config, config.successor.termination_threshold)[0])
    return np.stack(found)


def measure(operands: Sequence[Operands], config: AcceleratorConfig | None) -> Ended:
    """Errors over all of `operands`; without a machine, of whole keys and all values."""
    capacity, formats = (config or machine(0.5)).capacity, (config or machine(0.5)).formats
    squares = np.zeros(3)
    kept = total = 0
    for part in operands:
        exact = exact_probabilities(part) @ part.value
        integer = quantise_operands(*part, formats)
        scale = integer.value_scale[:, None, None]
        mask = None if config is None else candidates(part, config)
        share = 1.0 if mask is None else float(mask.mean())
        kept += round(share * exact.shape[0] * exact.shape[1] * part.key.shape[1])
        total += exact.shape[0] * exact.shape[1] * part.key.shape[1]
        ended = attention(integer, formats, capacity, valid=mask).output * scale
        selected = attention(integer, formats, capacity, kept=max(1, round(share * part.key.shape[1]))).output * scale
        squares += (exact**2).sum(), ((ended - exact) ** 2).sum(), ((selected - exact) ** 2).sum()
    return Ended(kept / total, float(np.sqrt(squares[1] / squares[0])), float(np.sqrt(squares[2] / squares[0])))


def decoded_trace(prompts: int = PROMPTS) -> Trace:
    """byte-gpt reads prompts of text it has never seen and decodes the next bytes; nothing pruned, with operands."""
    import torch

    from topsieve.lowering import lower
    from topsieve.methods import build
    from topsieve.reduction.roles import BitPlan
    from topsieve.subjects.byte_gpt import text
    from topsieve.subjects.byte_gpt.model import load_byte_gpt
    from topsieve.subjects.decoding import decode

    draw = random.Random(SEED)
    content = text.reference(held_out=True)
    rows = torch.tensor([list(text.window(draw, content, PROMPT + DECODED)) for _ in range(prompts)])
    ran = decode(load_byte_gpt(), build("dense"), rows[:, :PROMPT], rows[:, PROMPT:], operands=True)
    return decoding_only(lower(ran.record, operands=True, bits=BitPlan()))


def decoding_only(trace: Trace) -> Trace:
    """The groups of one query a head."""
    wanted: dict[int, int] = {}
    for group in trace.attention_groups():
        if group.query_key.queries == 1:
            wanted |= {index: len(wanted) + place for place, index in enumerate(range(group.start, group.stop))}
    operands = {(wanted[index], name): array for (index, name), array in trace.operands.items() if index in wanted}
    return replace(trace, ops=tuple(trace.ops[index] for index in wanted), operands=operands)


def trace_rows(trace: Trace) -> list[Operands]:
    """Operands of every group of one query a head."""
    return [
        Operands(
            *(trace.operands[group.start, name].astype(np.float64) for name in ("query", "key")),
            trace.operands[group.stop - 1, "value"].astype(np.float64),
        )
        for group in trace.attention_groups()
        if group.query_key.queries == 1
    ]


def error_table(operands: Sequence[Operands]) -> list[str]:
    """Lines of Markdown."""
    whole = measure(operands, None)
    lines = [
        "| threshold | keys left | error | error of as many values kept by local selection |",
        "|---|---|---|---|",
        f"| none | 100 % | {whole.output:.2%} | {whole.output:.2%} |",
    ]
    cases = [(threshold, 0) for threshold in THRESHOLDS] + [(PRESET_THRESHOLD, TILE_KEYS)]
    for threshold, tile_keys in cases:
        found = measure(operands, machine(threshold, tile_keys))
        name = f"{threshold:.5f}" + (f", tiles of {tile_keys}" if tile_keys else "")
        lines.append(f"| {name} | {found.kept:.1%} | {found.output:.2%} | {found.selected:.2%} |")
    return lines


def machine_table(trace: Trace) -> list[str]:
    """Lines of Markdown: the trace on both machines."""
    lines = ["| machine | cycles | DRAM bytes | energy (uJ) |", "|---|---|---|---|"]
    published = simulate(trace, load_config("spatten"))
    for name, config in (
        ("`spatten`", load_config("spatten")),
        ("`topsieve` without early termination", load_config("topsieve", ["successor.termination_threshold=0"])),
        ("`topsieve`", load_config("topsieve")),
    ):
        report = simulate(trace, config)
        parts = (
            f"{report.cycles:,} ({published.cycles / report.cycles:.2f} times as fast)",
            f"{report.dram_bytes_total:,} ({report.dram_bytes_total / published.dram_bytes_total - 1:+.0%})",
            f"{report.energy_total_pj * 1e-6:,.1f} ({report.energy_total_pj / published.energy_total_pj - 1:+.0%})",
        )
        lines.append(f"| {name} | {' | '.join(parts)} |")
    return lines


PAGE = """# Early termination on real operands

What ending keys early ([successor.md](successor.md)) costs in accuracy and saves, on operands of real models. `make
early-termination` writes this page. Errors are relative 2-norms of attention outputs against float64 attention of the models'
own operands, over all rows, keys of 8 + 4 bits; every row decides alone, as in decoding. The last column keeps as many values
in every row as early termination leaves keys on average, by local value selection, which does not renormalise.

## byte-gpt, decoding

{prompts} prompts of {prompt} bytes of text that the model has never seen, {decoded} bytes decoded behind each; all layers and heads.

{decoding}

The same trace on the machines, with a progressive threshold of 0.1:

{machines}

## MiniLM

All layers over {paragraphs} paragraphs of English, each query row as if it were decoded: short, flat rows.

{encoder}

How to read it:

* A threshold bounds each dropped probability, not their sum. Flat rows of hundreds of keys lose many small ones together, which
  shows as error; sharp rows lose nothing. Neither model is tuned for pruning. The published traces keep 20 to 30 % of the values
  after fine-tuning.
* At equal counts the threshold is more accurate than the fixed number of local selection from about half of the keys on:
  it keeps more where a row is flat, and the softmax runs over what is left.
* A bound taken by tiles sees only the sum so far and leaves more keys.
"""


def write_page(path: Path) -> None:
    """Measure and write the page."""
    trace = decoded_trace()
    text = PAGE.format(
        prompts=PROMPTS,
        prompt=PROMPT,
        decoded=DECODED,
        paragraphs=PARAGRAPHS,
        decoding="\n".join(error_table(trace_rows(trace))),
        machines="\n".join(machine_table(trace)),
        encoder="\n".join(error_table(minilm_operands(PARAGRAPHS))),
    )
    with written_whole(path) as stream:
        stream.write(text)


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
