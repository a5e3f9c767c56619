"""`Adapters`: small maps in a frozen encoder that learn the types of a program's tokens."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from topsieve.transforms.encoder import encoder_passes, minilm, shape
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Workload
from topsieve_sim.trace.ops import Projection

# Modules of the standard library: programs to train on, and one to test on.
TRAINING, TEST = ("textwrap", "bisect", "shlex", "sched"), "heapq"
KINDS = ("keyword", "name", "number", "string", "operator", "comment")
IGNORED = -100


class Adapter(nn.Module):
    """x + up(relu(down(x))); the identity until it is trained."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """float [..., D] of float [..., D]."""
        out: Tensor = hidden + self.up(self.down(hidden).relu())
        return out


@contextmanager
def adapted(layers: Sequence[nn.Module], adapters: Sequence[Adapter]) -> Iterator[None]:
    """Each of `layers` gives its hidden states through its adapter; on the way out the model is as before."""
    handles = [
        layer.register_forward_hook(
            lambda _, __, out, adapter=adapter: adapter(out) if isinstance(out, Tensor) else (adapter(out[0]), *out[1:])
        )
        for layer, adapter in zip(layers, adapters, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def kinds(source: str) -> list[tuple[int, int, int]]:
    """(start, end, index in `KINDS`) of each typed token of a Python program, in characters."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = {
            tokenize.NAME: "keyword" if keyword.iskeyword(token.string) else "name",
            tokenize.NUMBER: "number",
            tokenize.STRING: "string",
            tokenize.OP: "operator",
            tokenize.COMMENT: "comment",
        }.get(token.type)
        if name is not None:
            start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
            found.append((start, end, KINDS.index(name)))
    return found


def labelled(source: str, length: int) -> tuple[Tensor, Tensor]:
    """Sub-tokens int64 [W, length] of a program in windows, and their labels: the kind of the token they are part of."""
    encoded = minilm().tokenizer(source, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    kind = [IGNORED] * len(source)
    for start, end, index in kinds(source):
        kind[start:end] = [index] * (end - start)
    labels = [kind[start] for start, _ in encoded["offset_mapping"]]
    whole = len(labels) // length * length
    ids = torch.tensor(encoded["input_ids"][:whole]).view(-1, length)
    return ids, torch.tensor(labels[:whole]).view(-1, length)


@dataclass(frozen=True)
class Adapters(Transform):
    """NER adapters: bottlenecks in a frozen encoder, trained to name the type of every token of a program.

    Saberi and Fard, 2023 (CodeBERTER); specification `methods-text`, section 22. Each layer's output goes through
    x + W_up s(W_down x). Attention is unchanged; every token costs 2 x width x rank multiply-accumulates more a layer.

    The encoder is MiniLM, the programs are modules of the standard library, the types those of Python's tokenizer.

    Parameters
    ----------
    rank : width of the bottleneck. steps, batch, learning_rate : of the training, of adapters and a linear classifier.
    length : sub-tokens of a window. sequences : windows that are traced. seed : of the weights and batches.
    """

    name: ClassVar[str] = "ner-adapters"
    attention: ClassVar[str] = "unchanged; two small maps a layer"

    rank: int = 48
    steps: int = 40
    batch: int = 8
    learning_rate: float = 3e-3
    length: int = 64
    sequences: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(rank=self.rank, steps=self.steps, batch=self.batch, sequences=self.sequences)
        self.need("length", 8 <= self.length <= 512, "8 to 512")
        self.need("learning_rate", self.learning_rate > 0, "a number above 0")

    def run(self) -> Outcome:
        windows = [labelled(_source(name), self.length) for name in TRAINING]
        data = tuple(torch.cat(part) for part in zip(*windows, strict=True))
        test = labelled(_source(TEST), self.length)
        with_adapters, trained = self.accuracy(data, test, rank=self.rank)
        without, _ = self.accuracy(data, test, rank=0)
        base = sum(parameter.numel() for parameter in minilm().model.parameters())
        of = shape()
        work = tuple(
            Projection(layer=0, tokens=self.length, inputs=inputs, outputs=outputs, role="other")
            for inputs, outputs in ((of.width, self.rank), (self.rank, of.width))
        )
        plain = encoder_passes([self.length] * self.sequences)
        changed = tuple(replace(item, layer_work=work) for item in plain)
        facts = {"accuracy": with_adapters, "accuracy_of_frozen_model": without, "trained_share": trained / base}
        effect = (
            f"{with_adapters:.0%} of sub-tokens typed right, a linear map on the frozen model {without:.0%}; "
            f"{trained / base:.1%} of the weights trained"
        )
        return Outcome(Workload(changed, self.name), Workload(plain, "frozen model"), facts, effect)

    def accuracy(self, data: tuple[Tensor, ...], test: tuple[Tensor, ...], *, rank: int) -> tuple[float, int]:
        """Share of the test's sub-tokens typed right after training, and the number of trained weights; rank 0 is none."""
        torch.manual_seed(self.seed)
        model: Any = minilm().model
        layers = list(model.encoder.layer) if rank else []
        width = model.config.hidden_size
        adapters = nn.ModuleList(Adapter(width, rank) for _ in layers)
        classifier = nn.Linear(width, len(KINDS))
        weights = [*adapters.parameters(), *classifier.parameters()]
        optimiser = torch.optim.AdamW(weights, lr=self.learning_rate)
        frozen = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        draw = torch.Generator().manual_seed(self.seed)
        try:
            for parameter, _ in frozen:
                parameter.requires_grad_(False)
            with adapted(layers, list(adapters)):
                for _ in range(self.steps):
                    rows = torch.randint(len(data[0]), (self.batch,), generator=draw)
                    predicted = classifier(model(input_ids=data[0][rows]).last_hidden_state)
                    loss = nn.functional.cross_entropy(
                        predicted.flatten(0, 1), data[1][rows].flatten(), ignore_index=IGNORED
                    )
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                with torch.no_grad():
                    guessed = classifier(model(input_ids=test[0]).last_hidden_state).argmax(-1)
        finally:
            for parameter, before in frozen:
                parameter.requires_grad_(before)
        typed = test[1] != IGNORED
        return float((guessed == test[1])[typed].double().mean()), sum(weight.numel() for weight in weights)


def _source(module: str) -> str:
    """The source of a module of the standard library."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
