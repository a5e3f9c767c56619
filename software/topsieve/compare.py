"""Compare reduction methods: what each keeps of a model's answer, and what it costs on an accelerator.

Each method's result is a file of its own, written whole when the method is done, with a digest of everything the result
depends on. A later run with the same inputs takes it from there, so nothing that was finished is computed twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsieve.gpu import GPU_KEY, Gpu, GpuCost, from_plain, gpu_cost, load_gpu
from topsieve.methods import build, describe, method_names
from topsieve.results import code_digest, json_text, made_folder, versions, write_text
from topsieve.subjects.registry import open_subject
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.report import write_perfetto
from topsieve_sim.trace import save_trace

if TYPE_CHECKING:
    from topsieve.measure import Bench
    from topsieve.reduction.roles import Method
    from topsieve.subjects.subject import Inputs, Subject

FORMAT_VERSION = 4
RESULT_FILE = "result.json"
REPORT_FILE = "report.json"
TIMELINE_FILE = "timeline.perfetto-trace"
TRACE_FILE = "trace.npz"
TIMES_FILE = "times.json"
# In a method's result file: what it depends on, code included.
DIGEST_KEY = "inputs_digest"
# In a method's result file: the kernel calls of a GPU, from which a later run prices any GPU.
GPU_WORK_KEY = "gpu_work"
# In a method's result file, alone with its name: why it does not run on the model.
REFUSED_KEY = "refused"
# In a list of methods: every method there is.
ALL = "all"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What to compare.

    Parameters
    ----------
    model : name of a subject (see `topsieve.subjects`) or folder of a model.
    methods : texts of methods, see `topsieve.methods.build`; `ALL` stands for every method that is not named itself.
    gpu : what the accelerator stands beside; None is the default of `topsieve.gpu.load_gpu`. No result of a method depends on it.
    every : methods that do not run on the model are no error: their reasons are part of the outcome. Always so with `ALL`.
    keep : share of tokens to keep, in (0, 1], for every method that takes one and does not say itself.
    config : the accelerator.
    inputs : what the model is fed with.

    Raises
    ------
    InputError
        unknown or repeated method, or a number out of range.
    """

    model: str
    methods: tuple[str, ...]
    keep: float
    config: AcceleratorConfig
    inputs: Inputs
    gpu: Gpu | None = None
    every: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise InputError("wrong value", source="--keep", value=self.keep, allowed="a number in (0, 1]")
        if self.inputs.sequences < 1:
            raise InputError("wrong value", source="--sequences", value=self.inputs.sequences, allowed="at least 1")
        if self.inputs.seed < 0:
            raise InputError("wrong value", source="--seed", value=self.inputs.seed, allowed="at least 0")
        object.__setattr__(self, "every", self.every or ALL in self.methods)
        object.__setattr__(self, "methods", _expanded(self.methods))
        if not self.methods:
            raise InputError("no method given", source="--methods", allowed=", ".join(method_names()))
        for method in self.methods:
            describe(_name(method))
        repeated = [method for method in self.methods if self.methods.count(method) > 1]
        if repeated:
            raise InputError("method given twice", source="--methods", value=repeated[0])

    def subject(self) -> Subject:
        """The model and its inputs, not loaded yet."""
        return open_subject(self.model, self.inputs)

    def facts(self, subject: Subject) -> dict[str, Any]:
        """Everything but the method that a result depends on, as plain data."""
        from topsieve_sim.energy import technology_digest

        return {
            **subject.facts(),
            "accelerator": self.config.model_dump(mode="json"),
            "accelerator_digest": self.config.digest,
            "technology_digest": technology_digest(self.config.technology),
            "keep": self.keep,
            "versions": versions(),
        }


@dataclass(frozen=True)
class Outcome:
    """The results of a comparison.

    Parameters
    ----------
    facts : what the results depend on, see `Question.facts`.
    results : one a method that ran, in the order asked for; the content of its `result.json`, and under `GPU_KEY` what the
        same operations cost on the GPU, see `topsieve.gpu.GpuCost.summary`.
    refused : method to the reason why it does not run on the model; empty unless all methods were asked for.
    reused : methods whose results a former run had left.
    """

    facts: Mapping[str, Any]
    results: tuple[Mapping[str, Any], ...]
    refused: Mapping[str, str]
    reused: tuple[str, ...]
    gpu: Gpu

    def gpu_cost(self, result: Mapping[str, Any]) -> GpuCost:
        """One of `results` on the GPU, kernel call by kernel call."""
        return gpu_cost(from_plain(result[GPU_WORK_KEY]), self.gpu)

    def to_json(self) -> str:
        """JSON text, equal to the byte for equal questions. Times are not part of it."""
        inner = (DIGEST_KEY, GPU_WORK_KEY)
        results = [{key: value for key, value in result.items() if key not in inner} for result in self.results]
        content = {
            "format": FORMAT_VERSION,
            "inputs": {**self.facts, GPU_KEY: self.gpu.facts},
            "results": results,
            REFUSED_KEY: self.refused,
        }
        return json_text(content)


def split_methods(text: str) -> tuple[str, ...]:
    """The methods of a comma-separated list; a part `parameter=value` belongs to the method before it.

    `dense,spatten:value_keep=0.5,quantisation=8+4,tome` is three methods.
    """
    methods: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if methods and ":" in methods[-1] and "=" in part and ":" not in part.partition("=")[0]:
            methods[-1] += "," + part
        else:
            methods.append(part)
    return tuple(methods)


def _expanded(methods: tuple[str, ...]) -> tuple[str, ...]:
    """`methods` with `ALL` replaced, in its place, by the methods that are not named beside it."""
    if ALL not in methods:
        return methods
    place = methods.index(ALL)
    others = methods[:place] + methods[place + 1 :]
    return (*methods[:place], *(name for name in method_names() if name not in others), *methods[place + 1 :])


def method_folder(out: Path, method: str) -> Path:
    """Where the files of `method` are; its text with every character that a file system may dislike replaced."""
    return out / "methods" / re.sub(r"[^A-Za-z0-9._=+-]+", "_", method)


def compare(
    question: Question, out: str | Path, *, traces: bool = False, progress: Progress = lambda line: None
) -> Outcome:
    """Answer `question`, leaving the files of each method in `out` as soon as it is done.

    Parameters
    ----------
    out : folder; made if missing.
    traces : keep each method's trace with its operands (some megabytes), for `topsieve simulate`.
    progress : called with one line whenever something begins.

    Raises
    ------
    InputError
        bad input, or a file cannot be written. Results of methods that were done stay.
    KeyboardInterrupt
        Ctrl-C; its text says what is kept.
    """
    gpu = question.gpu or load_gpu()
    folder = made_folder(out)
    done = 0
    try:
        subject = question.subject()
        facts = question.facts(subject)
        digest = _digest(json_text([FORMAT_VERSION, facts, _code_digest()]).encode())
        found = {
            method: _finished(method_folder(folder, method), method, digest, question.every, traces)
            for method in question.methods
        }
        reused = tuple(method for method in question.methods if found[method])
        results: list[Mapping[str, Any]] = []
        runner = _Runner(question, subject, folder, digest, traces, progress)
        for number, method in enumerate(question.methods, start=1):
            place = f"[{number}/{len(question.methods)}] {method}"
            former = found[method]
            results.append(former or runner.run(method, place))
            if former:
                progress(f"{place}: kept from an earlier run")
            done = number
        ran = tuple(_beside(result, gpu) for result in results if REFUSED_KEY not in result)
        refused = {result["method"]: result[REFUSED_KEY] for result in results if REFUSED_KEY in result}
        if not ran:
            raise InputError(f"no method runs here; {question.methods[0]}: {refused[question.methods[0]]}")
        return Outcome(facts, ran, refused, reused, gpu)
    except KeyboardInterrupt:
        kept = f"{done} of {len(question.methods)} methods are done and kept in {folder}"
        raise KeyboardInterrupt(f"{kept}; the same command goes on from there") from None


class _Runner:
    """Measures methods and writes their files; sets the bench up when the first method needs it."""

    def __init__(
        self, question: Question, subject: Subject, folder: Path, digest: str, traces: bool, progress: Progress
    ) -> None:
        self._question = question
        self._subject = subject
        self._folder = folder
        self._digest = digest
        self._traces = traces
        self._progress = progress
        self._bench: Bench | None = None
        self._built: dict[str, Method] = {}

    def run(self, method: str, place: str) -> Mapping[str, Any]:
        bench = self._set_up()
        self._progress(place)
        target = made_folder(method_folder(self._folder, method))
        # The result vouches for the files beside it, so the old one goes first and the new one comes last.
        (target / RESULT_FILE).unlink(missing_ok=True)
        start = time.perf_counter()
        try:
            measured = bench.measure(self._built[method])
        except InputError as error:
            if not self._question.every:
                raise
            return self._finish(target, {"method": method, REFUSED_KEY: str(error)})
        wall_seconds = time.perf_counter() - start
        measured.report.write_json(target / REPORT_FILE)
        write_perfetto(measured.report, target / TIMELINE_FILE)
        if self._traces:
            save_trace(measured.trace, target / TRACE_FILE)
        timing = measured.report.timing
        simulated = timing.wall_seconds if timing else 0.0
        write_text(target / TIMES_FILE, json_text({"wall_seconds": wall_seconds, "simulation_wall_seconds": simulated}))
        return self._finish(target, {"method": method, **measured.summary})

    def _finish(self, target: Path, result: Mapping[str, Any]) -> Mapping[str, Any]:
        text = json_text({**result, DIGEST_KEY: self._digest})
        write_text(target / RESULT_FILE, text)
        # As the file will give it back: what JSON does not tell apart (tuples, lists) must not differ between runs.
        return _loaded(text)

    def _set_up(self) -> Bench:
        if self._bench is None:
            from topsieve.measure import Bench

            question = self._question
            # All methods are built before the model is loaded: a wrong parameter of the last is known at once.
            self._built = {
                method: build(method, keep=question.keep if describe(_name(method)).takes_keep else None)
                for method in question.methods
            }
            self._progress(f"loading {question.model}, measuring it unreduced")
            self._bench = Bench(self._subject, question.config, question.inputs.seed)
        return self._bench


def _beside(result: Mapping[str, Any], gpu: Gpu) -> Mapping[str, Any]:
    """`result` with the GPU's cost of the same operations."""
    hardware = result["hardware"]
    cost = gpu_cost(from_plain(result[GPU_WORK_KEY]), gpu)
    return {**result, GPU_KEY: cost.summary(hardware["latency_us"], hardware["energy_pj"])}


def _name(method: str) -> str:
    return method.partition(":")[0].strip()


def _loaded(text: str) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


def _finished(folder: Path, method: str, digest: str, every: bool, traces: bool) -> Mapping[str, Any] | None:
    """The result that an earlier run with the same inputs left, if it did; a refusal counts where `every` method is asked."""
    try:
        result = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or result.get(DIGEST_KEY) != digest or result.get("method") != method:
        return None
    if REFUSED_KEY in result:
        return result if every else None
    return result if (folder / TRACE_FILE).exists() or not traces else None


def _code_digest() -> str:
    import topsieve
    import topsieve_sim

    return code_digest(topsieve, topsieve_sim)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
