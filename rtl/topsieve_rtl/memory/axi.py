"""The AXI4 read channels, as streams inside and with the usual flat names outside (AXI4 specification, chapter A2)."""

from __future__ import annotations

from typing import Any

from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

_INCREMENTING = 0b01
# Normal, non-cacheable, bufferable; unprivileged, secure, data.
_CACHE = 0b0011
_PROTECTION = 0b000


class ReadAddress(data.StructLayout):
    """One INCR burst of whole bus words; `words_minus_one` is ARLEN."""

    def __init__(self, address_bits: int) -> None:
        super().__init__({"address": address_bits, "words_minus_one": 8})


class ReadData(data.StructLayout):
    """One bus word with RRESP and RLAST."""

    def __init__(self, data_bits: int) -> None:
        super().__init__({"data": data_bits, "response": 2, "last": 1})


def read_port_members(data_bits: int, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    """The wires of a read-only AXI4 master, named as integration tools infer them: `m_axi_araddr` and so on."""
    address = {"id": id_bits, "addr": address_bits, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3}
    return {
        **{f"m_axi_ar{name}": Out(bits) for name, bits in address.items()},
        "m_axi_arvalid": Out(1),
        "m_axi_arready": In(1),
        "m_axi_rid": In(id_bits),
        "m_axi_rdata": In(data_bits),
        "m_axi_rresp": In(2),
        "m_axi_rlast": In(1),
        "m_axi_rvalid": In(1),
        "m_axi_rready": Out(1),
    }


def connect_read_port(m: Module, port: Any, address: Any, words: Any) -> None:
    """Drive the wires of `read_port_members` on `port` from a stream of `ReadAddress`, and a stream of `ReadData` from them.

    Every burst carries the ID 0, so AXI itself keeps the order.
    """
    size = len(port.m_axi_rdata) // 8
    m.d.comb += [
        port.m_axi_araddr.eq(address.payload.address),
        port.m_axi_arlen.eq(address.payload.words_minus_one),
        port.m_axi_arsize.eq(size.bit_length() - 1),
        port.m_axi_arburst.eq(_INCREMENTING),
        port.m_axi_arcache.eq(_CACHE),
        port.m_axi_arprot.eq(_PROTECTION),
        port.m_axi_arvalid.eq(address.valid),
        address.ready.eq(port.m_axi_arready),
        words.valid.eq(port.m_axi_rvalid),
        words.payload.data.eq(port.m_axi_rdata),
        words.payload.response.eq(port.m_axi_rresp),
        words.payload.last.eq(port.m_axi_rlast),
        port.m_axi_rready.eq(words.ready),
    ]
