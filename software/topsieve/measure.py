"""Measure one method on one model, corpus and accelerator: what it keeps and what it costs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topsieve.corpus import Corpus, evenly_spaced
from topsieve.fidelity import FidelityTest
from topsieve.lowering import lower
from topsieve.methods import spell
from topsieve.models import reduce
from topsieve.pretrained import MINILM, MINILM_SHA256, load_pretrained
from topsieve.record import Record
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import BitPlan, Method, Site
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import Report
from topsieve_sim.trace import Trace

# One letter a token and layer in `survival`.
ALONE, SHARED, GONE = "A", "S", "."

_HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Measurement:
    """A method's result: `summary` is plain data that JSON holds, `report` and `trace` are what it was taken from."""

    summary: dict[str, Any]
    report: Report
    trace: Trace


class Bench:
    """A model, a corpus and an accelerator, set up once; methods are measured on it one after the other.

    Parameters
    ----------
    model : see `topsieve.pretrained.load_pretrained`.
    corpus : fidelity is measured on all its paragraphs.
    sequences : cycles are measured on this many evenly spaced paragraphs.
    config : the accelerator.
    seed : of random methods, and of scores that a trace does not hold.

    Raises
    ------
    InputError
        the model cannot be loaded, a paragraph is longer than the model takes, or a measured one is longer than the
        accelerator's capacity.
    """

    def __init__(self, model: str, corpus: Corpus, sequences: int, config: AcceleratorConfig, seed: int) -> None:
        self._pretrained = load_pretrained(model)
        self._model_name = Path(model).name
        self._config = config
        self._seed = seed
        self._rows = self._pretrained.tokens(evenly_spaced(corpus.paragraphs, sequences), source=corpus.name)
        longest = max(map(len, self._rows))
        if longest > config.capacity:
            raise InputError(
                f"a paragraph has {longest} tokens, more than the accelerator {config.name} holds",
                source=corpus.name,
                allowed=f"at most {config.capacity} tokens, or --set capacity={longest}",
            )
        self._fidelity = FidelityTest(self._pretrained, corpus)

    def measure(self, method: Method) -> Measurement:
        """Run the model under `method`, its trace on the accelerator, and compare its embeddings with the full model's."""
        with torch.inference_mode(), reduce(self._pretrained.model, method, operands=True, seed=self._seed) as reduced:
            self._pretrained.model(**self._pretrained.batch(self._rows))
            record = reduced.record
        trace = lower(record, operands=True, bits=machine_bits(self._config))
        # A model's own idea of its name may be a folder on this machine.
        trace = dataclasses.replace(trace, model=self._model_name)
        report = simulate(trace, self._config, seed=self._seed)
        fidelity = self._fidelity.measure(method, seed=self._seed)
        summary = {
            "parameters": dataclasses.asdict(method),  # type: ignore[call-overload]
            "resolved": spell(method),
            "tokens": _tokens(record),
            "survival": self._survival(record),
            "fidelity": {name: value for name, value in dataclasses.asdict(fidelity).items() if name != "method"},
            "hardware": _hardware(report),
            "notes": list(report.notes),
        }
        return Measurement(summary, report, trace)

    def _survival(self, record: Record) -> dict[str, Any]:
        words = self._pretrained.tokenizer.convert_ids_to_tokens(self._rows[0])
        return {"words": words, "layers": survival(record, sequence=0)}


def machine_bits(config: AcceleratorConfig) -> BitPlan:
    """Widths in which `config` fetches queries, keys and values of a method that does not choose its own."""
    formats, progressive = config.formats, config.progressive
    if progressive.enabled:
        return BitPlan(
            formats.query_bits, formats.key_msb_bits, formats.key_lsb_bits, formats.value_bits, progressive.threshold
        )
    return BitPlan(formats.query_bits, formats.key_bits, 0, formats.value_bits, 0.0)


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


def _tokens(record: Record) -> dict[str, Any]:
    """Live tokens and heads a layer, summed over the sequences, with the count of these."""
    return {
        "sequences": record.sequences,
        "attention": [int(layer.attention_tokens.sum()) for layer in record.layers],
        "ffn": [int(layer.ffn_tokens.sum()) for layer in record.layers],
        "heads": [int(layer.heads.sum()) for layer in record.layers],
    }


def _hardware(report: Report) -> dict[str, Any]:
    """The report's main numbers; the report itself is a file beside the result."""
    return {
        "cycles": report.cycles,
        "latency_us": report.latency_us,
        "macs": report.macs,
        "flops": report.flops,
        "attention_flops": report.attention_flops,
        "dram_bytes": report.dram_bytes_total,
        "energy_pj": report.energy_total_pj,
        "energy_by_component_pj": report.component_energy_pj(),
        "power_w": report.power_w,
        "query_rows": report.query_rows,
        "lsb_rows": report.lsb_rows,
        "units": [row.model_dump(mode="json") for row in report.units],
    }


def model_digest(model: str) -> str:
    """Identifies the weights, configuration and tokenizer of `model` without reading large files whole.

    Raises
    ------
    InputError
        there is no such model directory.
    """
    if model == MINILM:
        return MINILM_SHA256[:16]
    directory = Path(model)
    if not directory.is_dir():
        load_pretrained(model)  # says what is wrong
    content = hashlib.sha256()
    for path in _files(directory):
        size = path.stat().st_size
        content.update(f"{path.relative_to(directory).as_posix()} {size}\n".encode())
        with path.open("rb") as stream:
            content.update(stream.read(_HASHED_BYTES))
            stream.seek(max(size - _HASHED_BYTES, 0))
            content.update(stream.read(_HASHED_BYTES))
    return content.hexdigest()[:16]


def _files(directory: Path) -> Sequence[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
