"""What a host needs beside the accelerator's Verilog: C headers and driver, Python driver, clock constraints."""

from __future__ import annotations

from collections.abc import Mapping

from topsieve_rtl.csr import ACCELERATOR_MAP, c_header
from topsieve_rtl.csr.accelerator_map import ID
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator import RunError
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES
from topsieve_sim.golden.descriptor import FIELDS, FLAG_MEANINGS

_LICENCE = "SPDX-License-Identifier: Apache-2.0"
_C_TYPES = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


def accelerator_files(config: AcceleratorConfig, top: str, command_line: str) -> Mapping[str, str]:
    """File name -> text, of the machine `config` whose Verilog module is `top`."""
    return {
        "topsieve_registers.h": c_header(ACCELERATOR_MAP),
        "topsieve_descriptor.h": descriptor_header(),
        "topsieve.h": _driver_header(config, command_line),
        "topsieve.c": _driver(),
        "topsieve_driver.py": _python_driver(config, command_line),
        f"{top}.xdc": _constraints(config, top, command_line),
    }


def descriptor_header() -> str:
    """C99: a descriptor as a struct of its 128 bytes, and its flags."""
    lines = [
        "/* A descriptor of one layer as it stands in memory, little endian.",
        f" * {_LICENCE} */",
        "#ifndef TOPSIEVE_DESCRIPTOR_H",
        "#define TOPSIEVE_DESCRIPTOR_H",
        "",
        "#include <stdint.h>",
        "",
    ]
    for flag, meaning in FLAG_MEANINGS.items():
        lines.append(f"#define TOPSIEVE_FLAG_{flag.name} UINT32_C(0x{int(flag):04X}) /* {meaning} */")
    lines += ["", "typedef struct {"]
    place = 0
    for field in FIELDS:
        if field.offset > place:
            lines.append(f"    uint8_t reserved_{place}[{field.offset - place}]; /* 0 */")
        lines.append(f"    {_C_TYPES[field.size_bytes]} {field.name}; /* {field.meaning} */")
        place = field.offset + field.size_bytes
    lines += [
        f"    uint8_t reserved_{place}[{DESCRIPTOR_BYTES - place}]; /* 0 */",
        "} topsieve_descriptor;",
        "",
        "/* Every field stands at a multiple of its size, so there is nothing between them. */",
        f"typedef char topsieve_descriptor_size[sizeof(topsieve_descriptor) == {DESCRIPTOR_BYTES} ? 1 : -1];",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _driver_header(config: AcceleratorConfig, command_line: str) -> str:
    codes = "\n".join(f"#define TOPSIEVE_ERROR_{error.name} {error.value}" for error in RunError)
    return f"""/* Bare-metal driver of the accelerator {config.name}, configuration {config.digest}.
 * {_LICENCE}
 * Written by: {command_line} */
#ifndef TOPSIEVE_H
#define TOPSIEVE_H

#include <stdint.h>

#include "topsieve_descriptor.h"
#include "topsieve_registers.h"

#define TOPSIEVE_ID_VALUE UINT32_C(0x{ID:08X})
#define TOPSIEVE_CONFIG_DIGEST UINT64_C(0x{config.digest})

/* status.error */
{codes}
/* of topsieve_open: nothing there, or an accelerator of another configuration */
#define TOPSIEVE_ERROR_NOT_FOUND 256
#define TOPSIEVE_ERROR_OTHER_CONFIG 257

typedef struct {{
    volatile uint32_t *registers;
}} topsieve_device;

/* Returns 0, or why there is no device at `registers`. */
int topsieve_open(topsieve_device *device, volatile void *registers);

/* Start the descriptors at `descriptor_address`; clears status, interrupts and counters first. */
void topsieve_start(topsieve_device *device, uint64_t descriptor_address);

/* In probability steps; the register keeps it. */
void topsieve_set_threshold(topsieve_device *device, uint32_t threshold);

/* 0 while the job runs, 1 when it has ended; *error is then 0 or status.error. */
int topsieve_finished(topsieve_device *device, int *error);

/* Wait for the end of the job; returns status.error. */
int topsieve_wait(topsieve_device *device);

/* Level of the interrupt output: for the end of a job, for errors. */
void topsieve_enable_interrupts(topsieve_device *device, int done, int error);
void topsieve_clear_interrupts(topsieve_device *device);

/* Copy every counter; then read them one by one, by the offsets of topsieve_registers.h. */
void topsieve_snapshot(topsieve_device *device);
uint64_t topsieve_counter(topsieve_device *device, uint32_t offset);

#endif
"""


def _driver() -> str:
    return f"""/* Bare-metal driver of the accelerator.
 * {_LICENCE} */
#include "topsieve.h"

static uint32_t get(const topsieve_device *device, uint32_t offset)
{{
    return device->registers[offset / 4];
}}

static void put(const topsieve_device *device, uint32_t offset, uint32_t value)
{{
    device->registers[offset / 4] = value;
}}

int topsieve_open(topsieve_device *device, volatile void *registers)
{{
    uint64_t digest;

    device->registers = (volatile uint32_t *)registers;
    if (get(device, TOPSIEVE_ID) != TOPSIEVE_ID_VALUE)
        return TOPSIEVE_ERROR_NOT_FOUND;
    digest = (uint64_t)get(device, TOPSIEVE_CONFIG_DIGEST_HI) << 32 | get(device, TOPSIEVE_CONFIG_DIGEST_LO);
    return digest == TOPSIEVE_CONFIG_DIGEST ? TOPSIEVE_ERROR_NONE : TOPSIEVE_ERROR_OTHER_CONFIG;
}}

void topsieve_set_threshold(topsieve_device *device, uint32_t threshold)
{{
    put(device, TOPSIEVE_PROGRESSIVE_THRESHOLD, threshold);
}}

void topsieve_start(topsieve_device *device, uint64_t descriptor_address)
{{
    put(device, TOPSIEVE_STATUS, TOPSIEVE_STATUS_DONE_MASK | TOPSIEVE_STATUS_ERROR_MASK);
    topsieve_clear_interrupts(device);
    put(device, TOPSIEVE_DESCRIPTOR_ADDRESS_LO, (uint32_t)descriptor_address);
    put(device, TOPSIEVE_DESCRIPTOR_ADDRESS_HI, (uint32_t)(descriptor_address >> 32));
    put(device, TOPSIEVE_CONTROL, TOPSIEVE_CONTROL_CLEAR_MASK);
    put(device, TOPSIEVE_CONTROL, TOPSIEVE_CONTROL_START_MASK);
}}

int topsieve_finished(topsieve_device *device, int *error)
{{
    uint32_t status = get(device, TOPSIEVE_STATUS);

    *error = (int)((status & TOPSIEVE_STATUS_ERROR_MASK) >> TOPSIEVE_STATUS_ERROR_LSB);
    return *error != 0 || (status & TOPSIEVE_STATUS_DONE_MASK) != 0;
}}

int topsieve_wait(topsieve_device *device)
{{
    int error;

    while (!topsieve_finished(device, &error))
        ;
    return error;
}}

void topsieve_enable_interrupts(topsieve_device *device, int done, int error)
{{
    put(device, TOPSIEVE_INTERRUPT_ENABLE,
        (done ? TOPSIEVE_INTERRUPT_ENABLE_DONE_MASK : 0) | (error ? TOPSIEVE_INTERRUPT_ENABLE_ERROR_MASK : 0));
}}

void topsieve_clear_interrupts(topsieve_device *device)
{{
    put(device, TOPSIEVE_INTERRUPT_STATUS, TOPSIEVE_INTERRUPT_STATUS_DONE_MASK | TOPSIEVE_INTERRUPT_STATUS_ERROR_MASK);
}}

void topsieve_snapshot(topsieve_device *device)
{{
    put(device, TOPSIEVE_CONTROL, TOPSIEVE_CONTROL_SNAPSHOT_MASK);
}}

uint64_t topsieve_counter(topsieve_device *device, uint32_t offset)
{{
    return get(device, offset) | (uint64_t)get(device, offset + 4) << 32;
}}
"""


def _python_driver(config: AcceleratorConfig, command_line: str) -> str:
    registers = "\n".join(f'    "{register.name}": 0x{register.offset:03X},' for register in ACCELERATOR_MAP.registers)
    counters = "\n".join(f'    "{counter.name}": 0x{counter.offset:03X},' for counter in ACCELERATOR_MAP.counters)
    flags = "\n".join(f'    "{flag.name.lower()}": 0x{int(flag):04X},' for flag in FLAG_MEANINGS if flag.name)
    fields = "\n".join(f'    "{field.name}": ({field.offset}, {field.size_bytes}),' for field in FIELDS)
    errors = ", ".join(f'{error.value}: "{error.name.lower()}"' for error in RunError)
    return f'''"""Driver of the accelerator {config.name} (configuration {config.digest}); needs the standard library only.

Written by: {command_line}
{_LICENCE}

    device = Accelerator(read32, write32)        # byte offset -> word; (byte offset, word) -> None
    memory[address : address + {DESCRIPTOR_BYTES}] = descriptor(["last", "reset_tokens"], keys=64, queries=1, ...)
    device.run(address)
"""

ID = 0x{ID:08X}
CONFIG_DIGEST = 0x{config.digest}
REGISTERS = {{
{registers}
}}
COUNTERS = {{
{counters}
}}
FLAGS = {{
{flags}
}}
FIELDS = {{
{fields}
}}
ERRORS = {{{errors}}}


class AcceleratorError(RuntimeError):
    """A job that failed, or a device that is not the expected one."""


def descriptor(flags, **fields):
    """The {DESCRIPTOR_BYTES} bytes of a descriptor; fields that are not named are 0."""
    image = bytearray({DESCRIPTOR_BYTES})
    for name, value in {{"flags": sum(FLAGS[flag] for flag in set(flags)), **fields}}.items():
        offset, size = FIELDS[name]
        image[offset : offset + size] = int(value).to_bytes(size, "little")
    return bytes(image)


class Accelerator:
    """One device behind two functions that reach its registers."""

    def __init__(self, read32, write32):
        self._read32, self._write32 = read32, write32
        if self.read("id") != ID:
            raise AcceleratorError("no accelerator: id 0x%08x" % self.read("id"))
        digest = self.read("config_digest_hi") << 32 | self.read("config_digest_lo")
        if digest != CONFIG_DIGEST:
            raise AcceleratorError("accelerator of configuration %016x" % digest)

    def read(self, register):
        """A register by name."""
        return self._read32(REGISTERS[register])

    def write(self, register, value):
        """A register by name."""
        self._write32(REGISTERS[register], value)

    def start(self, descriptor_address, threshold=None):
        """Run the descriptors; clears status, interrupts and counters first."""
        self.write("status", 0xFF02)
        self.write("interrupt_status", 3)
        self.write("descriptor_address_lo", descriptor_address & 0xFFFFFFFF)
        self.write("descriptor_address_hi", descriptor_address >> 32)
        if threshold is not None:
            self.write("progressive_threshold", threshold)
        self.write("control", 2)
        self.write("control", 1)

    def finished(self):
        """Whether the job has ended; raises AcceleratorError if it failed."""
        status = self.read("status")
        error = status >> 8 & 0xFF
        if error:
            raise AcceleratorError("the job failed: %s" % ERRORS.get(error, error))
        return bool(status & 2)

    def run(self, descriptor_address, threshold=None):
        """`start`, then poll until the job has ended."""
        self.start(descriptor_address, threshold)
        while not self.finished():
            pass

    def counters(self):
        """Every performance counter, all of the same cycle."""
        self.write("control", 4)
        return {{name: self._read32(place) | self._read32(place + 4) << 32 for name, place in COUNTERS.items()}}
'''


def _constraints(config: AcceleratorConfig, top: str, command_line: str) -> str:
    period = 1000.0 / config.clock_mhz
    return f"""# Template of clock constraints for {top}: adapt the port names to the design around it.
# {_LICENCE}
# Written by: {command_line}
# All logic is on clk, rising edge; rst is synchronous. The AXI ports are outputs of registers or of FIFOs.
create_clock -name topsieve_clk -period {period:.3f} [get_ports clk]
# The interrupt is a level that software clears.
set_false_path -to [get_ports irq]
"""
