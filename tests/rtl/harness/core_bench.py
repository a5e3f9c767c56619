"""The attention core between its two plane fetchers, on a memory that answers as the contract says, stalls added."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from amaranth import Module, Value
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.sim import Simulator

from topsieve_rtl.attention.core import AttentionCore
from topsieve_rtl.cosim.codec import pack, unpack
from topsieve_rtl.memory import PlaneFetcher
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.attention import AttentionOperands


@dataclass(frozen=True)
class CoreCase:
    """One job: `operands` over all tokens in memory, of which `tokens` are the row, in order, if the list is live."""

    operands: AttentionOperands
    tokens: list[int]
    queries: int
    causal: bool = False
    progressive: bool = False
    threshold: int = 0
    kept: int = 0
    live_tokens: bool = False
    live_queries: bool = False
    # Spare bytes between rows and heads.
    row_gap: int = 0
    base: int = 0

    @property
    def keys(self) -> int:
        """Length of a row."""
        return len(self.tokens)

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.operands.query.shape[0] // self.operands.key.shape[0]


@dataclass
class Memory:
    """Bytes, and the pattern in which they are answered."""

    data: bytearray
    latency: int
    width: int
    generator: np.random.Generator
    stalls: float
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)
    place: int = 0
    hold: int = 0

    def word(self, cycle: int) -> tuple[int, int] | None:
        """The word offered on R in this cycle, and whether it is the burst's last."""
        if not self.waiting or cycle < self.waiting[0][0] or cycle < self.hold:
            return None
        _, address, words = self.waiting[0]
        begin = address + self.place * self.width
        value = int.from_bytes(self.data[begin : begin + self.width], "little")
        self.place += 1
        last = self.place == words
        if last:
            self.waiting.popleft()
            self.place = 0
        if self.stalls and self.generator.random() < self.stalls:
            self.hold = cycle + 1 + int(self.generator.integers(1, 6))
        return value, int(last)

    def ask(self, cycle: int, address: int, words: int) -> None:
        """An address taken in `cycle`."""
        extra = int(self.generator.integers(0, 8)) if self.stalls and self.generator.random() < self.stalls else 0
        self.waiting.append((cycle + 1 + self.latency + extra, address, words))


class CoreBench(Elaboratable):
    """The core with its fetchers."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.core = AttentionCore(config)
        self.fetchers = (PlaneFetcher(key_value_fetch_shape(config)), PlaneFetcher(query_fetch_shape(config)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.keys, m.submodules.queries = keys, queries = self.fetchers
        wiring.connect(m, core.fetch_command, keys.command)
        wiring.connect(m, core.fetch_index, keys.index)
        wiring.connect(m, keys.o, core.fetched)
        wiring.connect(m, core.query_command, queries.command)
        wiring.connect(m, core.query_index, queries.index)
        wiring.connect(m, queries.o, core.query_fetched)
        return m


def plane_rows(values: np.ndarray, bits: int) -> list[bytes]:
    """Rows of elements, packed from the lowest bit on, padded to whole bytes."""
    rows = []
    for row in values:
        packed = 0
        for n, value in enumerate(row):
            packed |= (int(value) & ((1 << bits) - 1)) << (n * bits)
        rows.append(packed.to_bytes((len(row) * bits + 7) // 8, "little"))
    return rows


class Image:
    """Planes in memory, one after the other."""

    def __init__(self, base: int) -> None:
        self.data = bytearray(np.random.default_rng(1).bytes(base))

    def store(self, heads: np.ndarray, bits: int, gap: int) -> tuple[int, int, int]:
        """Address, distance of rows and distance of heads of a plane [heads, rows, elements]."""
        address = len(self.data)
        stride = (heads.shape[2] * bits + 7) // 8 + gap
        for head in heads:
            for row in plane_rows(head, bits):
                self.data += row.ljust(stride, b"\xa5")
        return address, stride, stride * heads.shape[1]


def prepare(config: AcceleratorConfig, case: CoreCase) -> tuple[bytearray, dict, list[dict]]:
    """The memory image, the job and the head writes of a case."""
    formats, operands = config.formats, case.operands
    image = Image(case.base)
    lsb = formats.key_lsb_bits
    query, query_row, query_head = image.store(operands.query, formats.query_bits, case.row_gap)
    msb, msb_row, msb_head = image.store(operands.key >> lsb, formats.key_msb_bits, case.row_gap)
    low, low_row, low_head = image.store(operands.key & ((1 << lsb) - 1), lsb, case.row_gap) if lsb else (0, 0, 0)
    value, value_row, value_head = image.store(operands.value, formats.value_bits, case.row_gap)
    image.data += bytes(256)
    kv_heads, head_dim, lanes = operands.key.shape[0], operands.key.shape[2], config.softmax.lanes
    job = {
        "keys": case.keys,
        "queries": case.queries,
        "heads": kv_heads,
        "group": case.group,
        "head_dim": head_dim,
        "kept_values": case.kept,
        "causal": int(case.causal),
        "progressive": int(case.progressive),
        "live_tokens": int(case.live_tokens),
        "live_queries": int(case.live_queries),
        "threshold": case.threshold,
        "query_row_bytes": query_row,
        "key_msb_row_bytes": msb_row,
        "key_lsb_row_bytes": low_row,
        "value_row_bytes": value_row,
        "query_head_bytes": query_head,
        "product_words": config.dot_product.interval_cycles(lanes, head_dim),
        "weighted_words": config.weighted_sum.interval_cycles(lanes, head_dim),
    }
    heads = [
        {
            "valid": 1,
            "slot": slot,
            "key_msb": msb + slot * msb_head,
            "key_lsb": low + slot * low_head,
            "value": value + slot * value_head,
            "query": query + slot * case.group * query_head,
        }
        for slot in range(kv_heads)
    ]
    return image.data, job, heads


@dataclass
class CoreLog:
    """What was seen: output rows by (head, query), rows computed twice, tapped probabilities, events and cycles."""

    outputs: dict[tuple[int, int], list[int]]
    repeated: int
    importance: np.ndarray
    cycles: int
    events: dict[str, list]


def run_core(
    config: AcceleratorConfig, cases: list[CoreCase], seed: int = 0, stalls: float = 0.0, limit: int = 30_000
) -> list[CoreLog]:
    """Run jobs one after the other without a reset between them."""
    bench = CoreBench(config)
    core = bench.core
    simulator = Simulator(bench)
    simulator.add_clock(1e-9)
    generator = np.random.default_rng(seed)
    logs: list[CoreLog] = []

    async def testbench(context) -> None:
        for case in cases:
            await play(context, case)

    async def play(context, case: CoreCase) -> None:
        image, job, heads = prepare(config, case)
        width = config.memory.bytes_per_cycle
        memories = [Memory(image, config.memory.latency_cycles, width, generator, stalls) for _ in range(2)]

        async def strobe(port, writes: list[dict]) -> None:
            for write in writes:
                context.set(Value.cast(port).as_unsigned(), pack(port.shape(), write))
                await context.tick()
            context.set(Value.cast(port).as_unsigned(), 0)

        await strobe(core.head_write, heads)
        multipliers, shifts = (np.broadcast_to(part, case.operands.query.shape[:1]) for part in case.operands.factor)
        await strobe(
            core.factor_write,
            [
                {"valid": 1, "slot": n, "multiplier": int(a), "shift": int(b)}
                for n, (a, b) in enumerate(zip(multipliers, shifts, strict=True))
            ],
        )
        await strobe(
            core.token_write,
            [{"valid": 1, "position": n, "token": token} for n, token in enumerate(case.tokens)],
        )
        assert context.get(core.idle)
        context.set(Value.cast(core.job.payload).as_unsigned(), pack(core.job.payload.shape(), job))
        context.set(core.job.valid, 1)
        await context.tick()
        context.set(core.job.valid, 0)
        log = CoreLog({}, 0, np.zeros(config.capacity + config.softmax.lanes, np.int64), 0, {})
        for cycle in range(limit):
            for memory, fetcher in zip(memories, bench.fetchers, strict=True):
                word = memory.word(cycle)
                context.set(fetcher.data.valid, word is not None)
                if word is not None:
                    context.set(fetcher.data.payload.data, word[0])
                    context.set(fetcher.data.payload.last, word[1])
                ready = not (stalls and generator.random() < stalls)
                context.set(fetcher.address.ready, ready)
            output_ready = not (stalls and generator.random() < stalls)
            context.set(core.o.ready, output_ready)
            for memory, fetcher in zip(memories, bench.fetchers, strict=True):
                if context.get(fetcher.address.valid) and context.get(fetcher.address.ready):
                    address = context.get(fetcher.address.payload.address)
                    memory.ask(cycle, address, context.get(fetcher.address.payload.words_minus_one) + 1)
            if output_ready and context.get(core.o.valid):
                elements, row = unpack(core.o.payload.shape(), context.get(core.o.payload.as_value()))
                bits = (config.capacity - 1).bit_length()
                log.outputs[row >> bits, row & ((1 << bits) - 1)] = list(elements)
            if context.get(core.probability_tap.valid):
                lanes = [context.get(lane) for lane in core.probability_tap.lanes]
                first = context.get(core.probability_tap.word) * len(lanes)
                log.importance[first : first + len(lanes)] += lanes
            log.repeated += context.get(core.repeated)
            if context.get(core.done):
                log.cycles = cycle
                logs.append(log)
                await context.tick()
                assert context.get(core.idle)
                return
            await context.tick()
        raise AssertionError(f"not done within {limit} cycles, {len(log.outputs)} rows left the core")

    simulator.add_testbench(testbench)
    simulator.run()
    return logs
