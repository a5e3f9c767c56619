"""The typed operations of a trace: what a model with a reduction method asks of the hardware.

One dataclass a kind. Counts are of live (not padded) tokens unless the trace says otherwise. `macs` is the number of
multiply-accumulates; `flops` is what `torch.utils.flop_counter` counts for the same work (two per multiply-accumulate
of a matrix product, nothing for anything else).

An operation checks itself when it is made: counts are integers of at least one (a few may be zero, see `minimums`) and
agree with each other, else `InputError` names the kind, the field and the value.

Source: specification `reduction-interface`, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar

from topsieve_sim.errors import InputError


class TopKScope(StrEnum):
    """What a top-k selects among."""

    TOKEN = "token"
    HEAD = "head"
    VALUE = "value"
    EDGE = "edge"


PLACE_MINIMUMS: Mapping[str, int] = {"layer": -1, "sequence": 0, "step": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation. `layer` is -1 outside the layers; `sequence` is the batch item; `step` the generated token.

    Raises
    ------
    InputError
        a field has the wrong type, is under its minimum or contradicts another.
    """

    kind: ClassVar[str] = ""
    counts_flops: ClassVar[bool] = False
    operand_names: ClassVar[tuple[str, ...]] = ()
    minimums: ClassVar[Mapping[str, int]] = {}  # integer fields that may be something else than >= 1

    layer: int
    sequence: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, kind = field.name, field.type
            value = getattr(self, name)
            if kind == "int":
                minimum = PLACE_MINIMUMS.get(name, self.minimums.get(name, 1))
                if type(value) is not int or value < minimum:
                    raise self.wrong(name, f"an integer of at least {minimum}")
            elif kind == "float":
                if type(value) is not float:
                    raise self.wrong(name, "a number")
            elif kind == "bool":
                if type(value) is not bool:
                    raise self.wrong(name, "true or false")
            elif not isinstance(value, str):
                raise self.wrong(name, "text")
        self.check()

    def check(self) -> None:
        """Raise `InputError` where fields contradict each other; kinds with such a rule override it."""

    def wrong(self, name: str, allowed: str) -> InputError:
        """The error that says field `name` holds a value that is not `allowed`."""
        return InputError("wrong value", field=f"{self.kind}.{name}", value=getattr(self, name), allowed=allowed)

    def operand_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the float32 operand `name`."""
        raise KeyError(name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the operation."""
        return 0

    @property
    def flops(self) -> int:
        """Floating-point operations as `torch.utils.flop_counter` counts them."""
        return 2 * self.macs if self.counts_flops else 0


PROJECTION_ROLES = ("q", "k", "v", "qkv", "o", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection(Op):
    """Linear map of `tokens` rows; `role` is one of q, k, v, o, qkv (three maps side by side, `outputs` in all) and other."""

    kind: ClassVar[str] = "projection"
    counts_flops: ClassVar[bool] = True

    tokens: int
    inputs: int
    outputs: int
    role: str

    def check(self) -> None:
        if self.role not in PROJECTION_ROLES:
            raise self.wrong("role", ", ".join(PROJECTION_ROLES))

    @property
    def macs(self) -> int:
        return self.tokens * self.inputs * self.outputs


UNQUANTISED_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryKey(Op):
    """Scores of `queries` x `keys` for `heads` query heads that share `kv_heads` key heads. Opens an attention group.

    `first_head` numbers the first head where a trace has one operation a head. Key bits are split in planes; an
    unquantised key has `key_msb_bits` = 32 and no LSB plane. `threshold` > 0 asks for progressive quantisation;
    `lsb_rows` is the number of query rows (over all heads) known to need LSBs, or -1 where the data decides.

    Operands: `query` float32 [heads, queries, head_dim], `key` float32 [kv_heads, keys, head_dim] (before the
    1/sqrt(head_dim) scale), and optionally `bias` float32 [keys] added to the scaled scores.
    """

    kind: ClassVar[str] = "query_key"
    counts_flops: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("query", "key", "bias")
    minimums: ClassVar[Mapping[str, int]] = {"first_head": 0, "key_lsb_bits": 0, "lsb_rows": -1}

    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    first_head: int = 0
    query_bits: int = 12
    key_msb_bits: int = 12
    key_lsb_bits: int = 0
    threshold: float = 0.0
    lsb_rows: int = 0
    causal: bool = False

    def check(self) -> None:
        if self.heads % self.kv_heads:
            raise self.wrong("kv_heads", f"a divisor of heads = {self.heads}")
        for name in ("query_bits", "key_msb_bits"):
            if getattr(self, name) > UNQUANTISED_BITS:
                raise self.wrong(name, f"1 to {UNQUANTISED_BITS}")
        if self.key_msb_bits + self.key_lsb_bits > UNQUANTISED_BITS:
            raise self.wrong("key_lsb_bits", f"at most {UNQUANTISED_BITS} bits with the MSB plane")
        if not 0.0 <= self.threshold <= 1.0:
            raise self.wrong("threshold", "0 to 1")
        if self.lsb_rows > self.heads * self.queries:
            raise self.wrong("lsb_rows", f"at most heads x queries = {self.heads * self.queries}")
        if self.lsb_rows and not self.key_lsb_bits:
            raise self.wrong("lsb_rows", "0 where key_lsb_bits is 0")

    def operand_shape(self, name: str) -> tuple[int, ...]:
        return {
            "query": (self.heads, self.queries, self.head_dim),
            "key": (self.kv_heads, self.keys, self.head_dim),
            "bias": (self.keys,),
        }[name]

    @property
    def macs(self) -> int:
        return self.heads * self.queries * self.keys * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Op):
    """`heads` x `rows` rows of `cols` scores; `size_bias` adds log(token size) to each score (merging methods)."""

    kind: ClassVar[str] = "softmax"

    heads: int
    rows: int
    cols: int
    size_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSum(Op):
    """Token importance: sums of the probability columns over heads and rows into `cols` accumulators."""

    kind: ClassVar[str] = "column_sum"

    heads: int
    rows: int
    cols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPick(Op):
    """A tap on `rows` probability rows a head (the CLS row, the last query)."""

    kind: ClassVar[str] = "row_pick"

    heads: int
    rows: int
    cols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSum(Op):
    """Head importance: absolute sums over `rows` x `head_dim` attention outputs of each head."""

    kind: ClassVar[str] = "head_sum"

    heads: int
    rows: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(Op):
    """`repeats` independent selections of the `k` largest of `n` scores.

    Scope VALUE belongs to the attention group it stands in (`repeats` = heads x queries; the scores are the group's
    own probabilities). Operand of the other scopes: `scores` float32 [repeats, n].
    """

    kind: ClassVar[str] = "topk"
    operand_names: ClassVar[tuple[str, ...]] = ("scores",)
    minimums: ClassVar[Mapping[str, int]] = {"k": 0}

    n: int
    k: int
    scope: TopKScope
    repeats: int = 1

    def check(self) -> None:
        if self.k > self.n:
            raise self.wrong("k", f"0 to n = {self.n}")
        if not isinstance(self.scope, TopKScope):
            raise self.wrong("scope", ", ".join(TopKScope))

    def operand_shape(self, name: str) -> tuple[int, ...]:
        return {"scores": (self.repeats, self.n)}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold(Op):
    """Compare `n` scores with a threshold; `kept` of them stay."""

    kind: ClassVar[str] = "threshold"
    minimums: ClassVar[Mapping[str, int]] = {"kept": 0}

    n: int
    kept: int

    def check(self) -> None:
        if self.kept > self.n:
            raise self.wrong("kept", f"0 to n = {self.n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Op):
    """`p`-norms of `rows` vectors of `width`."""

    kind: ClassVar[str] = "norm"

    rows: int
    width: int
    p: int = 2

    @property
    def macs(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity(Op):
    """Dot products of `rows_a` x `rows_b` vectors of `width`."""

    kind: ClassVar[str] = "similarity"
    counts_flops: ClassVar[bool] = True

    rows_a: int
    rows_b: int
    width: int

    @property
    def macs(self) -> int:
        return self.rows_a * self.rows_b * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgmaxRow(Op):
    """Largest of `cols` scores for each of `rows` rows."""

    kind: ClassVar[str] = "argmax_row"

    rows: int
    cols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyMaxMin(Op):
    """`k` serial passes of `n` compares."""

    kind: ClassVar[str] = "greedy_max_min"

    n: int
    k: int

    def check(self) -> None:
        if self.k > self.n:
            raise self.wrong("k", f"1 to n = {self.n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool1d(Op):
    """One-dimensional pooling of `n` scores with a window of `window` (average or maximum)."""

    kind: ClassVar[str] = "pool1d"

    n: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Op):
    """Cumulative sum of `n` scores, then `samples` nearest-value searches in it."""

    kind: ClassVar[str] = "search"

    n: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather(Op):
    """Move `rows` surviving rows of `width` elements of `bits` bits; memory only."""

    kind: ClassVar[str] = "gather"

    rows: int
    width: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Op):
    """Weighted sums of `sources` rows of `width` into `targets` rows; `divide` normalises by the weights."""

    kind: ClassVar[str] = "merge"

    sources: int
    targets: int
    width: int
    divide: bool = True

    @property
    def macs(self) -> int:
        return self.sources * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityValue(Op):
    """Weighted sum of the `kept` (of `keys`) value rows for each of `queries`; closes an attention group.

    Operand: `value` float32 [kv_heads, keys, head_dim].
    """

    kind: ClassVar[str] = "probability_value"
    counts_flops: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("value",)

    heads: int
    kv_heads: int
    queries: int
    keys: int
    kept: int
    head_dim: int
    value_bits: int = 12

    def check(self) -> None:
        if self.heads % self.kv_heads:
            raise self.wrong("kv_heads", f"a divisor of heads = {self.heads}")
        if self.kept > self.keys:
            raise self.wrong("kept", f"1 to keys = {self.keys}")
        if self.value_bits > UNQUANTISED_BITS:
            raise self.wrong("value_bits", f"1 to {UNQUANTISED_BITS}")

    def operand_shape(self, name: str) -> tuple[int, ...]:
        return {"value": (self.kv_heads, self.keys, self.head_dim)}[name]

    @property
    def macs(self) -> int:
        return self.heads * self.queries * self.kept * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward(Op):
    """Two (three when `gated`) linear maps of `tokens` rows between `width` and `hidden`."""

    kind: ClassVar[str] = "feed_forward"
    counts_flops: ClassVar[bool] = True

    tokens: int
    width: int
    hidden: int
    gated: bool = False

    @property
    def macs(self) -> int:
        return (3 if self.gated else 2) * self.tokens * self.width * self.hidden


OP_KINDS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Projection,
        QueryKey,
        Softmax,
        ColumnSum,
        RowPick,
        HeadSum,
        TopK,
        Threshold,
        Norm,
        Similarity,
        ArgmaxRow,
        GreedyMaxMin,
        Pool1d,
        Search,
        Gather,
        Merge,
        ProbabilityValue,
        FeedForward,
    )
}
