# amaranth: UnusedElaboratable=no
"""The register file's handshakes: answers stand until taken, one for each request, always in time."""

from __future__ import annotations

import pytest
from amaranth import Cat, Module, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Cover, Elaboratable
from amaranth.lib.wiring import In

from rtl.harness import tool_or_skip
from topsieve_rtl.csr import ACCELERATOR_MAP, RegisterFile, RegisterMap
from topsieve_rtl.formal import Mode, ProofError, never_starves, prove
from topsieve_rtl.tools import executable

TABLE = RegisterMap("proof", ACCELERATOR_MAP.registers, ACCELERATOR_MAP.counters[:1])


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class SlaveProof(Elaboratable):
    """Any master, lawful or not: what the slave promises holds whatever it sees."""

    def __init__(self, unit: RegisterFile) -> None:
        self.unit = unit

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        for name, member in unit.signature.members.items():
            if member.flow is In:
                port = getattr(unit, name)
                m.d.comb += port.eq(AnySeq(len(port)))
        crossed = {}
        for channel in ("aw", "w", "b", "ar", "r"):
            crossed[channel] = Signal(name=f"{channel}_crossed")
            valid, ready = getattr(unit, f"s_axil_{channel}valid"), getattr(unit, f"s_axil_{channel}ready")
            m.d.comb += crossed[channel].eq(valid & ready)
        for channel, fields in (("b", ("resp",)), ("r", ("data", "resp"))):
            answer = Cat(getattr(unit, f"s_axil_{channel}{name}") for name in fields)
            valid = getattr(unit, f"s_axil_{channel}valid")
            stalled, before = Signal(name=f"{channel}_stalled"), Signal(len(answer), name=f"{channel}_before")
            m.d.sync += [stalled.eq(valid & ~crossed[channel]), before.eq(answer)]
            with m.If(stalled):
                m.d.comb += Assert(valid & (answer == before))
            m.d.comb += Assert(~getattr(unit, f"s_axil_{channel}resp")[0])

        # Requests without an answer: at most one waits while another's answer stands, and no answer comes unasked.
        inside = {}
        for request, answer in (("aw", "b"), ("w", "b"), ("ar", "r")):
            inside[request] = Signal(2, name=f"{request}_inside")
            m.d.sync += inside[request].eq(inside[request] + crossed[request] - crossed[answer])
            held = Signal(name=f"{request}_held")
            answering = getattr(unit, f"s_axil_{answer}valid")
            m.d.comb += [held.eq(inside[request] - answering), Assert(inside[request] <= 2)]
            m.d.comb += Assert((inside[request] != 0) | ~answering)
            m.d.comb += Assert(inside[request] - answering <= 1)
            # Ready, unless a request is held or reset was a cycle ago.
            with m.If(getattr(unit, f"s_axil_{request}ready")):
                m.d.comb += Assert(~held)
            never_starves(m, ~held, getattr(unit, f"s_axil_{request}ready"), 1, f"{request}_ready")
        never_starves(m, (inside["ar"] != 0), unit.s_axil_rvalid, 1, "read")
        never_starves(m, (inside["aw"] != 0) & (inside["w"] != 0), unit.s_axil_bvalid, 1, "write")
        m.d.comb += [Cover(crossed["r"] & (unit.s_axil_rresp == 2)), Cover(crossed["b"] & unit.control_start)]
        return m


def test_answers_stand_and_come_once_and_in_time():
    prove(SlaveProof(RegisterFile(TABLE)), depth=12, mode=Mode.BOUNDED)


def test_reads_and_writes_do_happen():
    prove(SlaveProof(RegisterFile(TABLE)), depth=8, mode=Mode.COVER)


class Hasty(RegisterFile):
    """Drops a read's answer after a cycle, taken or not."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.s_axil_rvalid):
            m.d.sync += self.s_axil_rvalid.eq(0)
        return m


def test_a_dropped_answer_is_refuted():
    with pytest.raises(ProofError):
        prove(SlaveProof(Hasty(TABLE)), depth=8, mode=Mode.BOUNDED)
