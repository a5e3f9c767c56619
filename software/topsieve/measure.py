"""Measure one method on one subject and accelerator: what it keeps and what it costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from topsieve.gpu import gpu_work, to_plain
from topsieve.methods import spell
from topsieve.reduction.roles import BitPlan, Method
from topsieve.subjects.subject import Subject
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import Report
from topsieve_sim.trace import Trace


@dataclass(frozen=True)
class Measurement:
    """A method's result: `summary` is plain data that JSON holds, `report` and `trace` are what it was taken from."""

    summary: dict[str, Any]
    report: Report
    trace: Trace


class Bench:
    """A subject and an accelerator, set up once; methods are measured on it one after the other.

    Parameters
    ----------
    subject : loaded here.
    config : the accelerator.
    seed : of scores that a trace does not hold.

    Raises
    ------
    InputError
        the model cannot be loaded, an input is longer than the model takes, or a measured one is longer than the
        accelerator's capacity.
    """

    def __init__(self, subject: Subject, config: AcceleratorConfig, seed: int) -> None:
        subject.load()
        self._subject = subject
        self._config = config
        self._seed = seed
        if subject.longest > config.capacity:
            raise InputError(
                f"an input has {subject.longest} tokens, more than the accelerator {config.name} holds",
                source=subject.facts()["corpus"],
                allowed=f"at most {config.capacity} tokens, or --set capacity={subject.longest}",
            )

    def measure(self, method: Method) -> Measurement:
        """Run the model under `method`, its trace on the accelerator, and measure what is left of its quality."""
        observed = self._subject.observe(method, machine_bits(self._config))
        program = prepare(observed.trace)
        report = simulate(program, self._config, seed=self._seed)
        summary = {
            "parameters": dataclasses.asdict(method),  # type: ignore[call-overload]
            "resolved": spell(method),
            "tokens": dict(observed.tokens),
            "survival": {"words": list(observed.words), "layers": list(observed.survival)},
            "fidelity": self._subject.quality(method),
            # A list: JSON sorts keys, and the first metric is the one that is plotted.
            "metrics": [{"name": name, **dataclasses.asdict(metric)} for name, metric in self._subject.metrics.items()],
            "hardware": _hardware(report),
            "gpu_work": to_plain(gpu_work(program, linear=self._config.fully_connected)),
            "notes": list(report.notes),
            **observed.more,
        }
        return Measurement(summary, report, observed.trace)


def machine_bits(config: AcceleratorConfig) -> BitPlan:
    """Widths in which `config` fetches queries, keys and values of a method that does not choose its own."""
    formats, progressive = config.formats, config.progressive
    if progressive.enabled:
        return BitPlan(
            formats.query_bits, formats.key_msb_bits, formats.key_lsb_bits, formats.value_bits, progressive.threshold
        )
    return BitPlan(formats.query_bits, formats.key_bits, 0, formats.value_bits, 0.0)


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
        "selection": report.selection.model_dump(mode="json"),
        "units": [row.model_dump(mode="json") for row in report.units],
    }
