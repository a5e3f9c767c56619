"""Runs jobs on an accelerator through two callables that reach its registers: a memory map, a debug bridge, a simulator."""

from __future__ import annotations

from topsieve_rtl.csr import ACCELERATOR_MAP, Driver
from topsieve_rtl.csr.accelerator_map import ID
from topsieve_rtl.csr.driver import Read32, Write32
from topsieve_sim.golden.accelerator import RunError


class AcceleratorError(RuntimeError):
    """A job that failed, or a device that is not the expected one."""


class AcceleratorDriver:
    """One accelerator.

    Parameters
    ----------
    read32 : byte offset -> word.
    write32 : (byte offset, word) -> None.
    digest : of the configuration that the caller's jobs are for; None takes any.

    Raises
    ------
    AcceleratorError
        there is no accelerator, or one of another configuration.
    """

    def __init__(self, read32: Read32, write32: Write32, digest: str | None = None) -> None:
        self.registers = Driver(ACCELERATOR_MAP, read32, write32)
        found = self.registers.id.read_word()
        if found != ID:
            raise AcceleratorError(f"no accelerator: id {found:#010x}, expected {ID:#010x}")
        high, low = self.registers.config_digest_hi.read_word(), self.registers.config_digest_lo.read_word()
        self.digest = f"{high:08x}{low:08x}"
        if digest is not None and digest != self.digest:
            raise AcceleratorError(f"accelerator of configuration {self.digest}, expected {digest}")

    def start(self, descriptor_address: int, threshold: int | None = None) -> None:
        """Run the descriptors at `descriptor_address`; clears status, interrupts and counters first.

        `threshold` of progressive quantisation, in probability steps; None keeps the register.
        """
        registers = self.registers
        registers.status.write(done=1, error=0xFF)
        registers.interrupt_status.write(done=1, error=1)
        registers.descriptor_address_lo.write(value=descriptor_address & 0xFFFFFFFF)
        registers.descriptor_address_hi.write(value=descriptor_address >> 32)
        if threshold is not None:
            registers.progressive_threshold.write(value=threshold)
        registers.control.write(clear=1)
        registers.control.write(start=1)

    def finished(self) -> bool:
        """Whether the job has ended.

        Raises
        ------
        AcceleratorError
            it ended with an error.
        """
        status = self.registers.status.read()
        if status["error"]:
            code = status["error"]
            names = {error.value: error.name.lower() for error in RunError}
            raise AcceleratorError(f"the job failed with error {code}: {names.get(code, 'unknown')}")
        return bool(status["done"])

    def run(self, descriptor_address: int, threshold: int | None = None) -> None:
        """`start`, then poll until the job has ended.

        Raises
        ------
        AcceleratorError
            it ended with an error.
        """
        self.start(descriptor_address, threshold)
        while not self.finished():
            pass

    def counters(self) -> dict[str, int]:
        """Every performance counter of the last job."""
        return self.registers.counters()
