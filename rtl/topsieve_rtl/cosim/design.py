"""A component as the engines see it: flat named ports and the values that cross them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amaranth import Shape
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring

from topsieve_rtl.cosim.codec import pack, unpack
from topsieve_rtl.verilog.convert import rtlil_text, verilog_text

View = Callable[[Any], Any]


@dataclass(frozen=True)
class StreamPort:
    """A stream port; `name` is its path in the signature joined with `__`, as in the Verilog port names."""

    name: str
    shape: ShapeLike
    bits: int
    interface: Any

    def encode(self, beat: Any) -> int:
        """Bits of a beat."""
        try:
            return pack(self.shape, beat)
        except ValueError as error:
            raise ValueError(f"port {self.name}: {error}") from error


@dataclass(frozen=True)
class PlainPort:
    """A port outside every stream: an input held for a whole case, or an output read at its end."""

    name: str
    bits: int
    signed: bool
    signal: Any


class Design:
    """A component with its ports sorted by kind.

    Parameters
    ----------
    component : any `wiring.Component` whose streams are neither `always_valid` nor `always_ready`.
    name : top module name.
    views : per output stream, what to compare of a decoded beat (for instance only its valid lanes).

    Raises
    ------
    ValueError
        a stream that cannot be stalled, or a view of an unknown port.
    """

    def __init__(self, component: wiring.Component, name: str, views: Mapping[str, View] | None = None) -> None:
        self.component = component
        self.name = name
        self.views = dict(views or {})
        self.sources: list[StreamPort] = []
        self.sinks: list[StreamPort] = []
        self.constants: list[PlainPort] = []
        self.status: list[PlainPort] = []
        for path, flow, member, value in _ports(component.signature, component):
            port_name = "__".join(path)
            if isinstance(member, stream.Signature):
                if member.always_valid or member.always_ready:
                    raise ValueError(f"stream {port_name} cannot be stalled")
                shape = value.payload.shape()
                port = StreamPort(port_name, shape, Shape.cast(shape).width, value)
                (self.sources if flow is wiring.In else self.sinks).append(port)
            else:
                plain = Shape.cast(member.shape)
                entry = PlainPort(port_name, plain.width, plain.signed, value)
                (self.constants if flow is wiring.In else self.status).append(entry)
        unknown = set(self.views) - {port.name for port in self.sinks}
        if unknown:
            raise ValueError(f"views of unknown output streams: {sorted(unknown)}")

    @cached_property
    def rtlil(self) -> str:
        """RTLIL text; the key of every built product."""
        return rtlil_text(self.component, self.name)

    @cached_property
    def verilog(self) -> str:
        """Verilog text, the same that `emit_unit` ships."""
        return verilog_text(self.rtlil)

    def decode(self, port: StreamPort, bits: int) -> Any:
        """The value of an output beat, seen through the port's view."""
        value = unpack(port.shape, bits)
        view = self.views.get(port.name)
        return view(value) if view else value


def _ports(
    signature: wiring.Signature, interface: Any, path: tuple[str, ...] = (), flipped: bool = False
) -> Iterator[tuple[tuple[str, ...], wiring.Flow, Any, Any]]:
    for name, member in signature.members.items():
        if member.dimensions:
            raise ValueError(f"port {name} is an array of ports, which the engines do not drive")
        flow = member.flow.flip() if flipped else member.flow
        value = getattr(interface, name)
        if member.is_port:
            yield (*path, name), flow, member, value
        elif isinstance(member.signature, stream.Signature):
            yield (*path, name), flow, member.signature, value
        else:
            yield from _ports(member.signature, value, (*path, name), flow is wiring.In)
