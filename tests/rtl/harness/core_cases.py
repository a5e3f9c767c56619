"""Jobs for the attention core: random machines and layers, their image in memory, and what the models say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.attention import AttentionOperands, AttentionResult, attention, flush_cycles
from topsieve_sim.golden.numbers import ScoreFactor, msb_only
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles
from topsieve_sim.timing.attention import AttentionGroup
from topsieve_sim.timing.operand_layout import OperandLayout

TINY = load_config("tiny")


@dataclass(frozen=True, kw_only=True)
class CoreCase:
    """One job: `operands` of all tokens in memory, of which `tokens` are the row; all of them unless the list is live.

    Rows and heads in memory are `row_gap` bytes apart, behind `base` bytes.
    """

    operands: AttentionOperands
    tokens: list[int]
    queries: int
    causal: bool = False
    progressive: bool = False
    threshold: int = 0
    kept: int = 0
    live_tokens: bool = False
    live_queries: bool = False
    row_gap: int = 0
    base: int = 0

    @property
    def keys(self) -> int:
        """Length of a row."""
        return len(self.tokens)

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        return int(self.operands.key.shape[0])

    @property
    def heads(self) -> int:
        """Query heads."""
        return int(self.operands.query.shape[0])

    @property
    def head_dim(self) -> int:
        """Elements of a row."""
        return int(self.operands.key.shape[2])

    @property
    def row_keys(self) -> np.ndarray:
        """Keys that each row of a head sees."""
        if not self.causal:
            return np.full(self.queries, self.keys)
        return np.maximum(1, self.keys - self.queries + np.arange(self.queries) + 1)

    def golden(self, config: AcceleratorConfig) -> AttentionResult:
        """Every bit that leaves."""
        operands = self.operands
        query = operands.query[:, self.tokens] if self.live_queries else operands.query
        # First passes read MSB planes, and a threshold of 0 makes none of them unsure.
        sure = self.progressive and self.threshold == 0
        key = msb_only(operands.key, config.formats.key_lsb_bits) if sure else operands.key
        gathered = AttentionOperands(
            query,
            key[:, self.tokens],
            operands.value[:, self.tokens],
            operands.factor,
            None,
            operands.value_scale,
        )
        valid = np.arange(self.keys) < self.row_keys[:, None]
        return attention(gathered, config.formats, config.capacity, self.threshold, self.kept or None, valid[None])

    def group(self, config: AcceleratorConfig, image: Image, golden: AttentionResult) -> AttentionGroup:
        """The group of `topsieve_sim.timing.attention`, its operands where `image` has them."""
        rows = self.heads * self.queries
        row_keys = np.tile(self.row_keys, self.heads)
        kept = min(self.kept or self.keys, self.keys)
        scores = [row[:count] for row, count in zip(golden.probability.reshape(rows, -1), row_keys, strict=True)]
        cycles = flush = np.zeros(rows, np.int64)
        survivors = None
        if kept < self.keys:
            topk, bits = config.topk, config.formats.probability_bits
            code = SELECTOR_CODES[topk.selector]
            cycles = np.array(
                [
                    select_cycles(row, kept, code, topk.parallelism, bits, topk.seed, topk.radix_bits)[0]
                    for row in scores
                ]
            )
            flush = flush_cycles(np.concatenate(scores), row_keys, kept, topk.parallelism)
            if rows == self.kv_heads:
                assert golden.kept is not None
                tokens = np.array(self.tokens)
                survivors = np.array([tokens[np.flatnonzero(row)] for row in golden.kept.reshape(rows, -1)])
        place = np.array(self.tokens) if self.live_queries else np.arange(self.queries)
        query, query_row, query_head = image.planes["query"]
        layout = OperandLayout(
            heads=np.array(
                [
                    address + np.arange(self.kv_heads) * head
                    for address, _, head in (image.planes[name] for name in ("key_msb", "key_lsb", "value"))
                ]
            ),
            row_bytes=np.array([image.planes[name][1] for name in ("key_msb", "key_lsb", "value")]),
            query=(query + np.arange(self.heads)[:, None] * query_head + place[None] * query_row).reshape(rows),
            output=np.zeros(rows, np.int64),
            tokens=np.array(self.tokens) if self.live_tokens else None,
            survivors=survivors,
        )
        return AttentionGroup(
            heads=self.kv_heads,
            queries=rows // self.kv_heads,
            keys=self.keys,
            kept=kept,
            head_dim=self.head_dim,
            lsb_flags=golden.lsb_rows.reshape(rows),
            select_cycles=cycles,
            flush_cycles=flush,
            row_keys=row_keys,
            progressive=self.progressive,
            layout=layout,
        )


class Image:
    """A case in memory; `planes`: address, distance of rows and distance of heads of each plane."""

    def __init__(self, config: AcceleratorConfig, case: CoreCase) -> None:
        formats, operands, lsb = config.formats, case.operands, config.formats.key_lsb_bits
        self.data = bytearray(np.random.default_rng(1).bytes(case.base))
        self.planes: dict[str, tuple[int, int, int]] = {}
        self._store("query", operands.query, formats.query_bits, case.row_gap)
        self._store("key_msb", operands.key >> lsb, formats.key_msb_bits, case.row_gap)
        self._store("key_lsb", operands.key & ((1 << lsb) - 1), lsb, case.row_gap)
        self._store("value", operands.value, formats.value_bits, case.row_gap)
        # A burst ends with its bus word, beyond the last row.
        self.data += bytes(256)

    def _store(self, name: str, heads: np.ndarray, bits: int, gap: int) -> None:
        """A plane [heads, rows, elements]: packed from the lowest bit on, rows padded to whole bytes."""
        stride = (heads.shape[2] * bits + 7) // 8 + gap
        self.planes[name] = (len(self.data), stride, stride * heads.shape[1])
        for row in heads.reshape(-1, heads.shape[2]):
            packed = sum((int(value) & ((1 << bits) - 1)) << (n * bits) for n, value in enumerate(row))
            self.data += packed.to_bytes(stride - gap, "little") + b"\xa5" * gap

    def job(self, config: AcceleratorConfig, case: CoreCase) -> dict[str, int]:
        """The fields of an `AttentionJob`."""
        lanes = config.softmax.lanes
        return {
            "keys": case.keys,
            "queries": case.queries,
            "heads": case.kv_heads,
            "group": case.heads // case.kv_heads,
            "head_dim": case.head_dim,
            "kept_values": case.kept,
            "causal": int(case.causal),
            "progressive": int(case.progressive),
            "live_tokens": int(case.live_tokens),
            "live_queries": int(case.live_queries),
            "threshold": case.threshold,
            **{f"{name}_row_bytes": stride for name, (_, stride, _) in self.planes.items()},
            "query_head_bytes": self.planes["query"][2],
            "product_words": config.dot_product.interval_cycles(lanes, case.head_dim),
            "weighted_words": config.weighted_sum.interval_cycles(lanes, case.head_dim),
        }

    def heads(self, case: CoreCase) -> list[dict[str, int]]:
        """The `HeadWrite` of each head."""
        group = case.heads // case.kv_heads
        distances = {name: head * (group if name == "query" else 1) for name, (_, _, head) in self.planes.items()}
        return [
            {"valid": 1, "slot": slot, **{name: self.planes[name][0] + slot * distances[name] for name in self.planes}}
            for slot in range(case.kv_heads)
        ]


def draw_core_machine(seed: int, **fixed: Any) -> AcceleratorConfig:
    """A small machine with fetchers; two in three have formats of their own."""
    generator = np.random.default_rng(seed)

    def choice(values: Any) -> int:
        return int(generator.choice(values))

    while True:
        split, burst = choice([1, 2, 3, 4, 8]), choice([1, 2, 4])
        fields = TINY.model_dump() | {
            "name": "drawn",
            "capacity": choice(np.arange(2, 24)),
            "max_head_dim": choice(np.arange(1, 13)),
            "double_buffer": bool(generator.integers(2)),
            "dot_product": {"multipliers": split * choice([1, 2, 3, 4, 8]), "lane_split": split},
            "weighted_sum": {"multipliers": split * choice([1, 2, 3, 4, 8]), "lane_split": split},
            "softmax": {"lanes": choice([1, 2, 3, 4])},
            "topk": {
                "parallelism": choice([1, 2, 4]),
                "selector": str(generator.choice(["quick", "radix", "bitonic"])),
            },
            "importance": {"heads": choice(np.arange(1, 7))},
            "memory": {
                "model": "axi",
                "channels": 1,
                "beat_bytes": choice([1, 2, 4, 8]),
                "latency_cycles": choice(np.arange(1, 20)),
                "axi": {
                    "burst_words": burst,
                    "outstanding": choice(np.arange(1, 5)),
                    "buffer_words": burst * choice([1, 2, 3]),
                    "merge_bytes": choice([0, 8, 32]),
                    "address_bits": 20,
                },
            },
        }
        if generator.random() < 2 / 3:
            bits = {"query_bits": 9, "key_msb_bits": 8, "value_bits": 9, "output_bits": 12}
            fields["formats"] |= {
                name: choice(np.arange(4 if name == "output_bits" else 2, high)) for name, high in bits.items()
            }
            fields["formats"]["key_lsb_bits"] = choice([0, 1, 2, 4])
        try:
            return AcceleratorConfig.model_validate(fields | fixed)
        except ValidationError:
            # The validator knows which splits and lanes go together; nothing here repeats it.
            continue


def draw_core_case(
    config: AcceleratorConfig, generator: np.random.Generator, work_cycles: int = 500, **fixed: Any
) -> CoreCase:
    """Any layer that the machine runs, now and then at its limits, of about `work_cycles` cycles at most."""
    while True:
        case = _draw_core_case(config, generator, **fixed)
        lanes, rows = config.softmax.lanes, case.heads * case.queries
        words = sum(array.interval_cycles(lanes, case.head_dim) for array in (config.dot_product, config.weighted_sum))
        key_bytes = case.head_dim * (config.formats.key_bits + config.formats.value_bits) // 8
        fetched = case.kv_heads * case.keys * key_bytes // config.memory.bytes_per_cycle
        if rows * -(-case.keys // lanes) * words + fetched <= work_cycles:
            return case


def _draw_core_case(config: AcceleratorConfig, generator: np.random.Generator, **fixed: Any) -> CoreCase:
    formats, limit = config.formats, config.importance.heads

    def one_of(*values: Any) -> int:
        return int(generator.choice(values))

    def signed(bits: int, *shape: int) -> np.ndarray:
        return generator.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)

    group = int(generator.integers(1, min(limit, 3) + 1))
    kv_heads = int(generator.integers(1, limit // group + 1))
    head_dim = one_of(config.max_head_dim, generator.integers(1, config.max_head_dim + 1))
    total = one_of(config.capacity, generator.integers(1, config.capacity + 1))
    live = bool(generator.integers(2))
    keys = int(generator.integers(1, total + 1)) if live else total
    live_queries = live and generator.random() < 1 / 3
    queries = keys if live_queries else one_of(1, 1, generator.integers(1, min(config.capacity, 6) + 1))
    heads = kv_heads * group
    progressive = formats.key_lsb_bits > 0 and bool(generator.integers(2))
    fields = {
        "operands": AttentionOperands(
            signed(formats.query_bits, heads, total if live_queries else queries, head_dim),
            signed(formats.key_bits, kv_heads, total, head_dim),
            signed(formats.value_bits, kv_heads, total, head_dim),
            ScoreFactor(generator.integers(1, 1 << 16, heads), generator.integers(8, 24, heads)),
            None,
            np.ones(kv_heads),
        ),
        "tokens": sorted(generator.choice(total, keys, replace=False).tolist()),
        "queries": queries,
        "causal": bool(generator.integers(2)),
        "progressive": progressive,
        "threshold": one_of(0, *generator.integers(0, (1 << formats.probability_bits) + 1, 8)) if progressive else 0,
        "kept": min(one_of(0, generator.integers(1, keys + 2)), config.capacity),
        "live_tokens": live,
        "live_queries": live_queries,
        "row_gap": one_of(0, 0, 3),
        "base": int(generator.integers(50)),
    }
    return CoreCase(**(fields | fixed))
