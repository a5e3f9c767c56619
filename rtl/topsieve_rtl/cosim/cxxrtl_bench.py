"""The C++ bench of a design: the play of `topsieve_rtl.cosim.player`, compiled."""

from __future__ import annotations

from topsieve_rtl.cosim.design import Design

_HELPERS = """
#include <cstdint>
#include <cstring>

namespace {

template<size_t Bits> const value<Bits> &present(const value<Bits> &pin) { return pin; }
template<size_t Bits> const value<Bits> &present(const wire<Bits> &pin) { return pin.curr; }

template<class Pin> bool high(const Pin &pin) { return present(pin).data[0] & 1; }

template<size_t Bits> void put(value<Bits> &pin, const uint32_t *words) {
    for (size_t n = 0; n < value<Bits>::chunks; n++)
        pin.data[n] = words[n];
}

template<size_t Bits> void put(wire<Bits> &pin, const uint32_t *words) {
    put(pin.curr, words);
    put(pin.next, words);
}

template<class Pin> void put(Pin &pin, uint32_t word) { put(pin, &word); }

template<class Pin> size_t get(const Pin &pin, uint32_t *words) {
    const auto &bits = present(pin);
    for (size_t n = 0; n < bits.chunks; n++)
        words[n] = bits.data[n];
    return bits.chunks;
}

}  // namespace
"""

_HEAD = """
extern "C" int64_t topsieve_run(
    int64_t limit_cycles, int64_t drain_cycles, const int64_t *beats, const int64_t *const *arrivals,
    const uint32_t *const *payloads, const int64_t *pattern_cycles, const uint8_t *const *ready,
    const int64_t *expected, const int64_t *room, const uint32_t *constants, int64_t *counts, int64_t *const *taken,
    int64_t *const *left, uint32_t *const *outputs, uint32_t *status, int64_t *finished) {
    cxxrtl_design::p_{top} top;
    int64_t *const in = counts;
    int64_t *const out = counts + {sources};
    int64_t end = limit_cycles;
    int64_t total = limit_cycles;
    *finished = 0;
    put(top.p_rst, 0u);
"""


def bench_text(design: Design) -> str:
    """C++ to append to the design's CXXRTL text; exports `topsieve_run`."""
    lines = [
        _HELPERS,
        _HEAD.replace("{top}", _mangled(design.name)).replace("{sources}", str(len(design.sources))),
    ]
    offset = 0
    for port in design.constants:
        if port.bits:
            lines.append(f"    put(top.{_pin(port.name)}, constants + {offset});")
        offset += max(1, -(-port.bits // 32))
    lines.append("    for (int64_t cycle = 0; cycle < end; cycle++) {")
    for n, port in enumerate(design.sources):
        payload = (
            f"\n            put(top.{_pin(port.name, 'payload')}, payloads[{n}] + in[{n}] * {_chunks(port.bits)});"
            if port.bits
            else ""
        )
        lines.append(
            f"""        const bool offered_{n} = in[{n}] < beats[{n}] && cycle >= arrivals[{n}][in[{n}]];
        put(top.{_pin(port.name, "valid")}, offered_{n} ? 1u : 0u);
        if (offered_{n}) {{{payload}
        }}"""
        )
    for n, port in enumerate(design.sinks):
        lines.append(
            f"""        const bool ready_{n} = cycle < pattern_cycles[{n}] ? ready[{n}][cycle] : true;
        put(top.{_pin(port.name, "ready")}, ready_{n} ? 1u : 0u);"""
        )
    complete = [f"in[{n}] >= beats[{n}]" for n in range(len(design.sources))]
    complete += [f"out[{n}] >= expected[{n}]" for n in range(len(design.sinks))]
    reads = ["                uint32_t *words = status;"] if design.status else []
    reads += [
        f"                words += get(top.{_pin(port.name)}, words);" if port.bits else "                *words++ = 0;"
        for port in design.status
    ]
    lines.append(
        f"""        put(top.p_clk, 0u);
        top.step();
        if (!*finished && {" && ".join(complete)}) {{
            *finished = 1;
            total = cycle;
            end = cycle + drain_cycles;
            {{
{chr(10).join(reads)}
            }}
        }}"""
    )
    for n, port in enumerate(design.sources):
        lines.append(
            f"""        if (offered_{n} && high(top.{_pin(port.name, "ready")}))
            taken[{n}][in[{n}]++] = cycle;"""
        )
    for n, port in enumerate(design.sinks):
        payload = (
            f"\n            get(top.{_pin(port.name, 'payload')}, outputs[{n}] + out[{n}] * {_chunks(port.bits)});"
            if port.bits
            else ""
        )
        lines.append(
            f"""        if (ready_{n} && high(top.{_pin(port.name, "valid")}) && out[{n}] < room[{n}]) {{{payload}
            left[{n}][out[{n}]++] = cycle;
        }}"""
        )
    lines.append("        put(top.p_clk, 1u);\n        top.step();\n    }\n    return total;\n}")
    return "\n".join(lines) + "\n"


def _chunks(bits: int) -> int:
    return max(1, -(-bits // 32))


def _mangled(name: str) -> str:
    # CXXRTL doubles the underscores of an identifier made of letters, digits and underscores.
    return name.replace("_", "__")


def _pin(*path: str) -> str:
    return "p_" + _mangled("__".join(path))
