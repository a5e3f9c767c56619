# amaranth: UnusedElaboratable=no
"""The AXI4-Stream wrapper: bytes in, bytes out, under stalls on both sides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.harness.bus_bench import run_bus_bench
from sim.topk_packets import Shape, Traffic
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.topk import AxiStreamTopK, TopKEngine, make_selector
from topsieve_sim.arch import SelectorKind

SHAPE = Shape(SelectorKind.QUICK, 4, 2, 10, 30)


def wrapper() -> AxiStreamTopK:
    selector = make_selector(SHAPE.kind, SHAPE.lanes, SHAPE.score_bits, SHAPE.capacity)
    return AxiStreamTopK(TopKEngine(selector, SHAPE.load_lanes))


def random_traffic(seed: int) -> Traffic:
    generator = np.random.default_rng(seed)
    packets = []
    for n in (0, 1, 30, 31, 17, 8):
        scores = generator.integers(0, 1 << SHAPE.score_bits, n).tolist()
        packets.append(
            ([scores[start : start + 2] for start in range(0, n, 2)] or [[]], int(generator.integers(0, 32)))
        )
    beats = sum(len(chunks) for chunks, _ in packets)
    return Traffic(SHAPE, packets, [0] * beats, [])


def as_bytes(beat: tuple, score_bytes: int) -> tuple[int, int]:
    """tdata and tkeep of a load beat."""
    scores, count, _, _ = beat
    data = sum(score << 8 * score_bytes * lane for lane, score in enumerate(scores))
    return data, (1 << score_bytes * count) - 1


def survivors(data: int, keep: int, score_bytes: int, index_bytes: int) -> list[tuple[int, int]]:
    """(score, index) of the kept lanes."""
    found = []
    while keep:
        score = data & ((1 << 8 * score_bytes) - 1)
        index = data >> 8 * score_bytes & ((1 << 8 * index_bytes) - 1)
        found.append((score, index))
        width = score_bytes + index_bytes
        assert keep & ((1 << width) - 1) == (1 << width) - 1
        data, keep = data >> 8 * width, keep >> width
    return found


@pytest.mark.parametrize("seed", range(4))
def test_survivors_leave_in_order_under_stalls(seed):
    dut = wrapper()
    case = random_traffic(seed)
    expected = [(list(lanes[:count]), last, status) for lanes, count, last, status in case.outputs]
    received: list[tuple] = []
    generator = np.random.default_rng(seed)

    async def bench(context) -> None:
        following = 0
        offering = False
        for _ in range(5000):
            offering = following < len(case.beats) and (offering or generator.random() < 0.7)
            context.set(dut.s_axis_tvalid, offering)
            if offering:
                data, keep = as_bytes(case.beats[following], dut.score_bytes)
                context.set(dut.s_axis_tdata, data)
                context.set(dut.s_axis_tkeep, keep)
                context.set(dut.s_axis_tlast, case.beats[following][2])
                context.set(dut.s_axis_tuser, case.beats[following][3])
            ready = bool(generator.random() < 0.5)
            context.set(dut.m_axis_tready, ready)
            if ready and context.get(dut.m_axis_tvalid):
                lanes = survivors(
                    context.get(dut.m_axis_tdata), context.get(dut.m_axis_tkeep), dut.score_bytes, dut.index_bytes
                )
                received.append((lanes, context.get(dut.m_axis_tlast), context.get(dut.m_axis_tuser)))
            if offering and context.get(dut.s_axis_tready):
                following += 1
                offering = False
            if len(received) == len(expected):
                return
            await context.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    assert received == expected


def packed(values: list[tuple[int, ...]], widths: tuple[int, ...]) -> list[int]:
    """Bytes of `values`, each part in its number of bytes, lowest first."""
    return [
        byte
        for value in values
        for part, width in zip(value, widths, strict=True)
        for byte in part.to_bytes(width, "little")
    ]


def test_bus_models_see_the_same_packets(tmp_path):
    """An AXI4-Stream source and sink from another house, pausing at random, in Icarus."""
    dut = wrapper()
    packets = []
    for seed in range(4):
        case = random_traffic(seed)
        answers = iter(case.outputs)
        for scores, k in case.packets:
            received: list[tuple[int, int]] = []
            last, status = False, 0
            while not last:
                lanes, count, last, status = next(answers)
                received += lanes[:count]
            sent = packed([(score,) for chunk in scores for score in chunk], (dut.score_bytes,))
            keep = [1] * len(sent)
            if not sent:
                # A frame of no bytes cannot be sent: one beat of null bytes says the same.
                sent, keep = [0], [0]
            kept = packed(received, (dut.score_bytes, dut.index_bytes))
            packets.append({"sent": sent, "keep": keep, "k": k, "received": kept, "status": int(status)})
    file = tmp_path / "packets.json"
    file.write_text(json.dumps(packets), encoding="utf-8")
    run_bus_bench(dut, "axi_stream_topk", "rtl.harness.axi_stream_bench", TOPSIEVE_PACKETS=str(file))


def test_no_port_reaches_another_without_a_register():
    assert combinational_paths(wrapper()) == []
