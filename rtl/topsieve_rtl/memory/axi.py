"""The AXI4 read and write channels, as streams inside and with the usual flat names outside (AXI4 specification, chapter A2)."""

from __future__ import annotations

from typing import Any

from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

_INCREMENTING = 0b01
# Normal, non-cacheable, bufferable; unprivileged, secure, data.
_CACHE = 0b0011
_PROTECTION = 0b000


class BurstAddress(data.StructLayout):
    """One INCR burst of whole bus words; `words_minus_one` is ARLEN or AWLEN."""

    def __init__(self, address_bits: int) -> None:
        super().__init__({"address": address_bits, "words_minus_one": 8})


ReadAddress = BurstAddress
WriteAddress = BurstAddress


class ReadData(data.StructLayout):
    """One bus word with RRESP and RLAST."""

    def __init__(self, data_bits: int) -> None:
        super().__init__({"data": data_bits, "response": 2, "last": 1})


class WriteData(data.StructLayout):
    """One bus word with WSTRB and WLAST."""

    def __init__(self, data_bits: int) -> None:
        super().__init__({"data": data_bits, "strobes": data_bits // 8, "last": 1})


class WriteResponse(data.StructLayout):
    """BRESP."""

    def __init__(self) -> None:
        super().__init__({"response": 2})


def _address_members(channel: str, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    fields = {"id": id_bits, "addr": address_bits, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3}
    return {
        **{f"m_axi_{channel}{name}": Out(bits) for name, bits in fields.items()},
        f"m_axi_{channel}valid": Out(1),
        f"m_axi_{channel}ready": In(1),
    }


def _connect_address(m: Module, port: Any, channel: str, address: Any, data_bits: int) -> None:
    def wire(name: str) -> Any:
        return getattr(port, f"m_axi_{channel}{name}")

    m.d.comb += [
        wire("addr").eq(address.payload.address),
        wire("len").eq(address.payload.words_minus_one),
        wire("size").eq((data_bits // 8).bit_length() - 1),
        wire("burst").eq(_INCREMENTING),
        wire("cache").eq(_CACHE),
        wire("prot").eq(_PROTECTION),
        wire("valid").eq(address.valid),
        address.ready.eq(wire("ready")),
    ]


def read_port_members(data_bits: int, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    """The wires of a read-only AXI4 master, named as integration tools infer them: `m_axi_araddr` and so on."""
    return {
        **_address_members("ar", address_bits, id_bits),
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
    _connect_address(m, port, "ar", address, len(port.m_axi_rdata))
    m.d.comb += [
        words.valid.eq(port.m_axi_rvalid),
        words.payload.data.eq(port.m_axi_rdata),
        words.payload.response.eq(port.m_axi_rresp),
        words.payload.last.eq(port.m_axi_rlast),
        port.m_axi_rready.eq(words.ready),
    ]


def write_port_members(data_bits: int, address_bits: int, id_bits: int) -> dict[str, wiring.Member]:
    """The wires of a write-only AXI4 master: `m_axi_awaddr` and so on."""
    return {
        **_address_members("aw", address_bits, id_bits),
        "m_axi_wdata": Out(data_bits),
        "m_axi_wstrb": Out(data_bits // 8),
        "m_axi_wlast": Out(1),
        "m_axi_wvalid": Out(1),
        "m_axi_wready": In(1),
        "m_axi_bid": In(id_bits),
        "m_axi_bresp": In(2),
        "m_axi_bvalid": In(1),
        "m_axi_bready": Out(1),
    }


def connect_write_port(m: Module, port: Any, address: Any, words: Any, response: Any) -> None:
    """Drive the wires of `write_port_members` on `port` from streams of `WriteAddress` and `WriteData`, and a stream of
    `WriteResponse` from them. Every burst carries the ID 0.
    """
    _connect_address(m, port, "aw", address, len(port.m_axi_wdata))
    m.d.comb += [
        port.m_axi_wdata.eq(words.payload.data),
        port.m_axi_wstrb.eq(words.payload.strobes),
        port.m_axi_wlast.eq(words.payload.last),
        port.m_axi_wvalid.eq(words.valid),
        words.ready.eq(port.m_axi_wready),
        response.valid.eq(port.m_axi_bvalid),
        response.payload.response.eq(port.m_axi_bresp),
        port.m_axi_bready.eq(response.ready),
    ]
