"""The operations of a trace as a GPU runs them: the work none can avoid, and which measured calls do the same.

Attention is one fused kernel at batch one over the tokens that are left, in the GPU's own element width. What has no use
on a GPU is not charged to it: planes of bits, local value pruning (every value of the tokens left is read).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from topsieve_kernels.bench import floors
from topsieve_kernels.bench.shapes import AttentionShape, DecodeShape, GatherShape, MergeShape, SelectShape, Shape
from topsieve_sim.trace.ops import (
    OP_KINDS,
    ArgmaxRow,
    FeedForward,
    GreedyMaxMin,
    Merge,
    Norm,
    Op,
    Pool1d,
    Projection,
    Search,
    Similarity,
    Threshold,
)

SCORE_BYTES = 4  # float32, on every GPU
INDEX_BYTES = 4

SDPA = ("sdpa_cudnn", "sdpa_flash")
OURS = "ours"


@dataclass(frozen=True)
class Part:
    """A call of the benchmark: a row of `kernel` whose dimensions hold `wanted`, in the time of any of `contenders`."""

    kernel: str
    wanted: Mapping[str, int | bool]
    contenders: tuple[str, ...]
    times: int = 1


@dataclass(frozen=True)
class GpuOp:
    """One kernel call, or two fused; its fields are its dimensions."""

    kind: ClassVar[str]

    @property
    def dimensions(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def work(self, element_bytes: int) -> floors.Work:
        """Bytes that must move once and operations of the matrix products; operands are `element_bytes` wide."""
        raise NotImplementedError

    def ways(self) -> Iterator[tuple[Part, ...]]:
        """Sets of measured calls; the calls of a set do the same together."""
        yield from ()

    def shapes(self) -> Iterator[Shape]:
        """What to measure so that one of `ways` is known."""
        yield from ()


@dataclass(frozen=True)
class Attention(GpuOp):
    """Queries over keys, outputs out; causal is aligned bottom right.

    column_sums, head_sums : with importance of tokens, of heads. picked_rows : probability rows a head that are handed out.
    """

    kind: ClassVar[str] = "attention"

    heads: int
    key_heads: int
    rows: int
    keys: int
    head_dim: int
    causal: bool
    column_sums: bool = False
    head_sums: bool = False
    picked_rows: int = 0

    @property
    def _shape(self) -> AttentionShape:
        return AttentionShape(1, self.heads, self.key_heads, self.rows, self.keys, self.head_dim, self.causal)

    @property
    def _sums(self) -> bool:
        return self.column_sums or self.head_sums

    def work(self, element_bytes: int) -> floors.Work:
        plain = self._shape.work(element_bytes, sums=False)
        scores = self.keys * self.column_sums + self.heads * (self.head_sums + self.keys * self.picked_rows)
        return floors.Work(plain.memory_bytes + SCORE_BYTES * scores, plain.flops)

    def ways(self) -> Iterator[tuple[Part, ...]]:
        if self.rows == 1:
            # One query hands its probabilities out, and they are its column sums too.
            contenders = (
                (OURS,) if self._sums or self.picked_rows else (OURS, *(f"{name}_on_gathered_copy" for name in SDPA))
            )
            yield (self._decode(contenders),)
            if self.picked_rows or self.head_sums:
                return
        contenders = (OURS, "ours_two_passes") if self._sums else (OURS, "ours_two_passes", *SDPA)
        attention = Part(AttentionShape.kernel, asdict(self._shape), contenders)
        # No kernel hands rows of probabilities out of a block: those few rows run again as decode steps.
        yield (attention, *((self._decode((OURS,), self.picked_rows),) if self.picked_rows else ()))

    def _decode(self, contenders: tuple[str, ...], times: int = 1) -> Part:
        # What the cache held before does not matter, only what is read of it.
        wanted = {"batch": 1, "heads": self.heads, "key_heads": self.key_heads, "kept": self.keys}
        return Part(DecodeShape.kernel, {**wanted, "head_dim": self.head_dim}, contenders, times)

    def shapes(self) -> Iterator[Shape]:
        if self.rows > 1:
            yield self._shape
        if self.rows == 1 or self.picked_rows:
            yield DecodeShape(1, self.heads, self.key_heads, self.keys, self.keys, self.head_dim)


@dataclass(frozen=True)
class Select(GpuOp):
    """The `k` largest of `columns` scores in each of `rows` rows, the lowest index first among equals."""

    kind: ClassVar[str] = "topk"

    rows: int
    columns: int
    k: int

    def work(self, element_bytes: int) -> floors.Work:
        return floors.select_work(self.rows, self.columns, self.k)

    def ways(self) -> Iterator[tuple[Part, ...]]:
        # torch.topk answers ties in any order: not the same result.
        yield (Part(SelectShape.kernel, self.dimensions, (OURS, "torch_stable_sort")),)

    def shapes(self) -> Iterator[Shape]:
        if self.k:
            yield SelectShape(self.rows, self.columns, self.k)


@dataclass(frozen=True)
class MatchAndMerge(GpuOp):
    """Even tokens matched with odd ones on `width` channels, the best `removed` merged into `targets` rows of `channels`.

    The measured kernel also moves the rows that stay; the bound does not count them, as the accelerator does not.
    """

    kind: ClassVar[str] = "match_and_merge"

    tokens: int
    width: int
    channels: int
    removed: int
    targets: int

    def work(self, element_bytes: int) -> floors.Work:
        even, odd = (self.tokens + 1) // 2, self.tokens // 2
        elements = self.tokens * self.width + (self.removed + self.targets) * self.channels
        return floors.Work(elements * element_bytes, 2 * even * odd * self.width)

    def ways(self) -> Iterator[tuple[Part, ...]]:
        (shape,) = self.shapes()
        yield (Part(MergeShape.kernel, asdict(shape), (OURS,)),)

    def shapes(self) -> Iterator[Shape]:
        yield MergeShape(1, self.tokens, self.channels, self.width, self.removed)


@dataclass(frozen=True)
class GatherRows(GpuOp):
    """`rows` rows of `width` elements copied."""

    kind: ClassVar[str] = "gather"

    rows: int
    width: int

    def work(self, element_bytes: int) -> floors.Work:
        return floors.gather_work(1, 1, self.rows, self.width * element_bytes)

    def ways(self) -> Iterator[tuple[Part, ...]]:
        wanted = {"batch": 1, "heads": 1, "kept": self.rows, "head_dim": self.width}
        yield (Part(GatherShape.kernel, wanted, (OURS, "take_along_dim", "index_select")),)

    def shapes(self) -> Iterator[Shape]:
        yield GatherShape(1, 1, self.rows, self.rows, self.width)


@dataclass(frozen=True)
class Other(GpuOp):
    """An operation that the benchmark does not measure: its inputs read once, its outputs written once.

    operation : kind of the trace's operation. counts : its fields by name, sorted.
    """

    kind: ClassVar[str] = "other"

    operation: str
    counts: tuple[tuple[str, Any], ...]

    @property
    def dimensions(self) -> dict[str, Any]:
        return {"operation": self.operation, **dict(self.counts)}

    def work(self, element_bytes: int) -> floors.Work:
        op = OP_KINDS[self.operation](layer=0, **dict(self.counts))
        elements, scores, indices = _moved(op)
        return floors.Work(elements * element_bytes + scores * SCORE_BYTES + indices * INDEX_BYTES, op.flops)


PLACE = ("layer", "sequence", "step")


def other(op: Op) -> Other:
    """`op` without its place in the trace."""
    counts = tuple(sorted((field.name, getattr(op, field.name)) for field in fields(op) if field.name not in PLACE))
    return Other(op.kind, counts)


def _moved(op: Op) -> tuple[int, int, int]:
    """Elements of operands, float32 scores and int32 indices that `op` reads or writes at least once."""
    match op:
        case Similarity():
            return (op.rows_a + op.rows_b) * op.width, op.rows_a * op.rows_b, 0
        case Norm():
            return op.rows * op.width, op.rows, 0
        case ArgmaxRow():
            return 0, op.rows * op.cols + op.rows, op.rows
        case GreedyMaxMin():
            # A pass reads the row of the token chosen last.
            return 0, op.k * op.n, op.k
        case Threshold():
            return 0, op.n, op.kept
        case Pool1d():
            return 0, 2 * op.n, 0
        case Search():
            return 0, op.n, op.samples
        case Merge():
            return (op.sources + op.targets) * op.width, op.sources, 0
        case Projection():
            return op.tokens * (op.inputs + op.outputs) + op.inputs * op.outputs, 0, 0
        case FeedForward():
            weights = (3 if op.gated else 2) * op.width * op.hidden
            return 2 * op.tokens * op.width + weights, 0, 0
    raise NotImplementedError(f"no bound for {op.kind}")


GPU_OPS: dict[str, type[GpuOp]] = {kind.kind: kind for kind in (Attention, Select, MatchAndMerge, GatherRows)}


def op_from(kind: str, dimensions: Mapping[str, Any]) -> GpuOp:
    """The operation of `kind` with these dimensions, as `GpuOp.dimensions` gives them."""
    if kind == Other.kind:
        counts = {name: value for name, value in dimensions.items() if name != "operation"}
        return Other(dimensions["operation"], tuple(sorted(counts.items())))
    return GPU_OPS[kind](**dimensions)


__all__ = ["Attention", "GatherRows", "GpuOp", "MatchAndMerge", "Other", "Part", "Select", "op_from", "other"]
