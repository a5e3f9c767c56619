"""Shapes of the kernels: what a row of the benchmark was measured at, and by which its result is found again.

Torch is not needed to read them. As JSON, a list of shapes is `{"KERNEL": [{"FIELD": count, ...}, ...], ...}`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from topsieve_kernels.bench import floors


@dataclass(frozen=True)
class Shape:
    """Counts of at least one; a sentence of `rules` is what must hold between them.

    Raises
    ------
    ValueError
        one line that names the kernel, the field, the value and what is allowed.
    """

    kernel: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{self.kernel}.{field.name}: got {value!r}, allowed: an integer of at least 1")
            if field.type is bool and type(value) is not bool:
                raise ValueError(f"{self.kernel}.{field.name}: got {value!r}, allowed: true or false")
            if field.type is float and (type(value) not in (int, float) or not value >= 0):
                raise ValueError(f"{self.kernel}.{field.name}: got {value!r}, allowed: a number of at least 0")
        self.check()

    def check(self) -> None:
        """Raise ValueError where counts contradict each other."""

    def at_most(self, name: str, most: int, what: str) -> None:
        """Raise ValueError where field `name` is larger than `most`, which is called `what`."""
        if getattr(self, name) > most:
            raise ValueError(f"{self.kernel}.{name}: got {getattr(self, name)}, allowed: 1 to {what} = {most}")

    def shares_heads(self, heads: int, key_heads: int) -> None:
        """Raise ValueError where `key_heads` does not divide `heads`."""
        if heads % key_heads:
            raise ValueError(f"{self.kernel}.key_heads: got {key_heads}, allowed: a divisor of heads = {heads}")


@dataclass(frozen=True)
class AttentionShape(Shape):
    """Attention of `rows` queries over `keys` keys; causal is aligned bottom right."""

    kernel: ClassVar[str] = "attention_importance"
    batch: int
    heads: int
    key_heads: int
    rows: int
    keys: int
    head_dim: int
    causal: bool

    def check(self) -> None:
        self.shares_heads(self.heads, self.key_heads)

    def __str__(self) -> str:
        lengths = f"N{self.keys}" if self.rows == self.keys else f"M{self.rows} N{self.keys}"
        heads = f"B{self.batch} H{self.heads}/{self.key_heads}"
        return f"{heads} {lengths} D{self.head_dim}{' causal' if self.causal else ''}"

    def work(self, element_bytes: int, *, products: int = 2, sums: bool = True) -> floors.Work:
        """See `floors.attention_work`."""
        counts = (self.batch, self.heads, self.key_heads, self.rows, self.keys, self.head_dim, self.causal)
        return floors.attention_work(*counts, products, element_bytes, sums=sums)


@dataclass(frozen=True)
class DecodeShape(Shape):
    """One query a head over `kept` listed rows of a cache of `keys` rows."""

    kernel: ClassVar[str] = "decode_gathered"
    batch: int
    heads: int
    key_heads: int
    keys: int
    kept: int
    head_dim: int

    def check(self) -> None:
        self.shares_heads(self.heads, self.key_heads)
        self.at_most("kept", self.keys, "keys")

    def __str__(self) -> str:
        heads = f"B{self.batch} H{self.heads}/{self.key_heads}"
        return f"{heads} N{self.keys} keep {self.kept} D{self.head_dim}"

    def work(self, element_bytes: int, *, listed: bool = True, probabilities: bool = True) -> floors.Work:
        """See `floors.decode_work`."""
        counts = (self.batch, self.heads, self.key_heads, self.kept, self.head_dim, element_bytes)
        return floors.decode_work(*counts, listed=listed, probabilities=probabilities)


@dataclass(frozen=True)
class ProgressiveShape(Shape):
    """One query a head over nibble planes of `keys` rows; rows whose largest probability is under `threshold` fetch LSBs."""

    kernel: ClassVar[str] = "decode_progressive"
    batch: int
    heads: int
    key_heads: int
    keys: int
    head_dim: int
    threshold: float

    def check(self) -> None:
        self.shares_heads(self.heads, self.key_heads)

    def __str__(self) -> str:
        heads = f"B{self.batch} H{self.heads}/{self.key_heads}"
        return f"{heads} N{self.keys} D{self.head_dim} threshold {self.threshold}"


@dataclass(frozen=True)
class SelectShape(Shape):
    """The `k` largest of `columns` scores in each of `rows` rows."""

    kernel: ClassVar[str] = "topk_select"
    rows: int
    columns: int
    k: int

    def check(self) -> None:
        self.at_most("k", self.columns, "columns")

    def __str__(self) -> str:
        return f"R{self.rows} N{self.columns} k{self.k}"

    def work(self, element_bytes: int = 4) -> floors.Work:
        """See `floors.select_work`; scores are float32 whatever the operands are."""
        return floors.select_work(self.rows, self.columns, self.k)


@dataclass(frozen=True)
class MergeShape(Shape):
    """`removed` of `tokens` rows of `channels` merged, matched on `metric_channels`."""

    kernel: ClassVar[str] = "bipartite_merge"
    batch: int
    tokens: int
    channels: int
    metric_channels: int
    removed: int

    def check(self) -> None:
        self.at_most("removed", (self.tokens + 1) // 2, "half of the tokens")

    def __str__(self) -> str:
        return f"B{self.batch} N{self.tokens} C{self.channels} metric {self.metric_channels} remove {self.removed}"

    def work(self, element_bytes: int) -> floors.Work:
        """See `floors.merge_work`."""
        counts = (self.batch, self.tokens, self.channels, self.metric_channels, self.removed)
        return floors.merge_work(*counts, element_bytes)


@dataclass(frozen=True)
class GatherShape(Shape):
    """`kept` of `source_rows` rows of `head_dim` elements copied next to each other."""

    kernel: ClassVar[str] = "gather_rows"
    batch: int
    heads: int
    source_rows: int
    kept: int
    head_dim: int

    def check(self) -> None:
        self.at_most("kept", self.source_rows, "source_rows")

    def __str__(self) -> str:
        return f"B{self.batch} H{self.heads} N{self.source_rows} keep {self.kept} D{self.head_dim}"

    def work(self, element_bytes: int) -> floors.Work:
        """See `floors.gather_work`."""
        return floors.gather_work(self.batch, self.heads, self.kept, self.head_dim * element_bytes)


SHAPES: dict[str, type[Shape]] = {
    kind.kernel: kind for kind in (AttentionShape, DecodeShape, ProgressiveShape, SelectShape, MergeShape, GatherShape)
}

# The specification's table of bounds, decode and selection at the lengths that prune, and one GPT-2 of the published workloads.
FULL: tuple[Shape, ...] = (
    AttentionShape(32, 12, 12, 128, 128, 64, False),
    AttentionShape(64, 12, 12, 197, 197, 64, False),
    AttentionShape(32, 12, 12, 512, 512, 64, False),
    AttentionShape(8, 12, 12, 1024, 1024, 64, True),
    AttentionShape(1, 32, 8, 8192, 8192, 128, True),
    AttentionShape(1, 12, 12, 1024, 1024, 64, True),
    DecodeShape(16, 32, 8, 32768, 16384, 128),
    DecodeShape(16, 32, 8, 32768, 3276, 128),
    DecodeShape(1, 32, 8, 32768, 3276, 128),
    DecodeShape(1, 12, 12, 1024, 1024, 64),
    ProgressiveShape(16, 32, 8, 32768, 128, 0.0),
    ProgressiveShape(16, 32, 8, 32768, 128, 0.1),
    ProgressiveShape(16, 32, 8, 32768, 128, 2.0),
    SelectShape(256, 197, 98),
    SelectShape(256, 8192, 1024),
    SelectShape(256, 131072, 1024),
    SelectShape(4096, 200000, 1024),
    MergeShape(64, 197, 768, 64, 16),
    MergeShape(64, 197, 768, 64, 98),
    MergeShape(8, 4096, 320, 320, 2048),
    GatherShape(16, 8, 32768, 16384, 128),
    GatherShape(16, 8, 32768, 3276, 128),
)


def shape_of(kernel: str, dimensions: Mapping[str, Any]) -> Shape:
    """The shape of `kernel` with these fields.

    Raises
    ------
    ValueError
        unknown kernel; a field is missing, unknown or not allowed.
    """
    if kernel not in SHAPES:
        raise ValueError(f"unknown kernel: got {kernel!r}, allowed: {', '.join(SHAPES)}")
    names = [field.name for field in fields(SHAPES[kernel])]
    if not isinstance(dimensions, Mapping) or sorted(dimensions) != sorted(names):
        raise ValueError(f"{kernel}: got {dimensions!r}, allowed: the fields {', '.join(names)}")
    return SHAPES[kernel](**dimensions)


def read_shapes(path: str | Path) -> tuple[Shape, ...]:
    """The shapes of a JSON file, in order, each once.

    Raises
    ------
    ValueError
        one line that names the file: it cannot be read, or what it holds are no shapes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise ValueError(f'{path}: allowed: {{"KERNEL": [{{"FIELD": count, ...}}, ...], ...}}')
    try:
        shapes = [shape_of(kernel, entry) for kernel, entries in content.items() for entry in entries]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not shapes:
        raise ValueError(f"{path}: holds no shape")
    return tuple(dict.fromkeys(shapes))


def as_json(shapes: Iterable[Shape]) -> dict[str, Sequence[dict[str, Any]]]:
    """The content of a file that `read_shapes` reads."""
    found: dict[str, list[dict[str, Any]]] = {}
    for shape in shapes:
        found.setdefault(shape.kernel, []).append(asdict(shape))
    return found
