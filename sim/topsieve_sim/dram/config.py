"""`DramConfig`: one frozen, validated object that says what the memory is and how its controller behaves.

Presets are the YAML files in `presets/`; a new standard is a new file. Numbers carry their source: the `sources` mapping
names one for every section, or for a single field by its dotted path, which then wins.
"""

# JEDEC's own names for its timing parameters are kept, so that a data sheet can be read beside a preset.
# ruff: noqa: N815
from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BANKS_PER_CHANNEL = 64
"""A set of banks is one 64-bit word in the kernels."""

MAPPING_FIELDS = ("row", "rank", "bank_group", "bank", "column", "pseudo_channel", "channel")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(StrEnum):
    """How far a preset can be trusted."""

    MEASURED = "measured"
    """Equal to a configuration whose behaviour is tested against measured data."""
    PUBLISHED = "published"
    """Taken from one published parameter set; behaviour not compared with measured data."""
    JEDEC_CLASS = "jedec-class"
    """Typical of the speed class; no single data sheet stands behind it."""


class Policy(StrEnum):
    """Whose controller is modelled."""

    DRAMSIM3 = "dramsim3"
    """A command queue per bank, round robin over banks, first ready first served inside a bank."""
    RAMULATOR = "ramulator"
    """One read and one write buffer per channel, first ready first served over all banks."""


class PagePolicy(StrEnum):
    """What happens to a row after a column command."""

    OPEN = "open"
    CLOSED = "closed"
    """Every column command precharges its bank."""


class Organization(_Part):
    """The devices behind one controller."""

    channels: int = Field(ge=1, le=256, description="independent channels")
    pseudo_channels: int = Field(1, ge=1, le=2, description="pseudo-channels that share a channel's buffers and buses")
    ranks: int = Field(1, ge=1, le=8)
    bank_groups: int = Field(ge=1, le=16, description="bank groups per rank (or pseudo-channel)")
    banks_per_group: int = Field(ge=1, le=64)
    rows: int = Field(ge=2, le=1 << 24, description="rows per bank")
    row_bytes: int = Field(ge=32, le=1 << 20, description="bytes of one open row over all devices of a rank")
    bus_bits: int = Field(ge=8, le=1024, description="data bits per channel (per pseudo-channel if there are two)")
    burst_length: int = Field(ge=1, le=64, description="transfers per column command")
    transfers_per_clock: int = Field(2, ge=1, le=16, description="data transfers in one command-clock cycle")
    devices_per_rank: int = Field(1, ge=1, le=64, description="devices whose currents add up")

    @property
    def access_bytes(self) -> int:
        """Bytes of one request: one burst."""
        return self.bus_bits * self.burst_length // 8

    @property
    def burst_cycles(self) -> int:
        """Command-clock cycles one burst occupies the data bus."""
        return self.burst_length // self.transfers_per_clock

    @property
    def groups_per_channel(self) -> int:
        """Bank groups of all ranks and pseudo-channels of a channel."""
        return self.pseudo_channels * self.ranks * self.bank_groups

    @property
    def banks_per_rank(self) -> int:
        """Banks of one rank of one pseudo-channel."""
        return self.bank_groups * self.banks_per_group

    @property
    def banks_per_channel(self) -> int:
        """Banks of all ranks and pseudo-channels of a channel."""
        return self.groups_per_channel * self.banks_per_group

    @property
    def accesses_per_row(self) -> int:
        """Column addresses of one row, counted in requests."""
        return self.row_bytes // self.access_bytes

    def field_size(self, field: str) -> int:
        """Values an address field can take."""
        return {
            "row": self.rows,
            "rank": self.ranks,
            "bank_group": self.bank_groups,
            "bank": self.banks_per_group,
            "column": self.accesses_per_row,
            "pseudo_channel": self.pseudo_channels,
            "channel": self.channels,
        }[field]

    @property
    def capacity_bytes(self) -> int:
        """Bytes behind all channels."""
        return self.channels * self.banks_per_channel * self.rows * self.row_bytes


class Timing(_Part):
    """Timing parameters in cycles of the command clock, under their JEDEC names."""

    CL: int = Field(ge=1, le=400, description="read latency")
    CWL: int = Field(ge=1, le=400, description="write latency")
    AL: int = Field(0, ge=0, le=400, description="additive latency")
    tRCDRD: int = Field(ge=1, le=400, description="activate to read")
    tRCDWR: int = Field(ge=1, le=400, description="activate to write")
    tRP: int = Field(ge=1, le=400, description="precharge to activate")
    tRAS: int = Field(ge=1, le=800, description="activate to precharge")
    tRRD_S: int = Field(ge=1, le=400, description="activate to activate, other bank group")
    tRRD_L: int = Field(ge=1, le=400, description="activate to activate, same bank group")
    tFAW: int = Field(ge=1, le=800, description="window that holds at most four activates")
    tCCD_S: int = Field(ge=1, le=400, description="column command to column command, other bank group")
    tCCD_L: int = Field(ge=1, le=400, description="column command to column command, same bank group")
    tWTR_S: int = Field(ge=0, le=400, description="end of write burst to read, other bank group")
    tWTR_L: int = Field(ge=0, le=400, description="end of write burst to read, same bank group")
    tWR: int = Field(ge=1, le=400, description="end of write burst to precharge")
    tRTP: int = Field(ge=1, le=400, description="read to precharge")
    tRTRS: int = Field(0, ge=0, le=100, description="gap on the data bus when it changes rank or direction")
    tRFC: int = Field(ge=1, le=5000, description="all-bank refresh to the next command")
    tREFI: int = Field(ge=1, le=200_000, description="mean interval of all-bank refreshes of a rank")
    activate_cycles: int = Field(1, ge=1, le=2, description="cycles an activate occupies the row command bus")

    @property
    def tRC(self) -> int:  # noqa: N802
        """Activate to activate of the same bank."""
        return self.tRAS + self.tRP

    @property
    def shortest_refresh_interval(self) -> int:
        """Below it a rank cannot open, use and close a row between two refreshes."""
        return self.tRFC + 2 * self.tRC


class Controller(_Part):
    """Queues and scheduling."""

    policy: Policy = Policy.DRAMSIM3
    read_queue: int = Field(32, ge=1, le=1024, description="reads waiting per channel")
    write_buffer: int = Field(32, ge=1, le=1024, description="writes waiting per channel")
    bank_queue: int = Field(8, ge=1, le=32, description="commands waiting per bank (dramsim3)")
    row_hit_cap: int = Field(4, ge=1, le=1024, description="hits a row may serve before older misses win (dramsim3)")
    write_drain_threshold: int = Field(
        8, ge=0, le=1024, description="an idle channel drains once more writes than this wait (dramsim3)"
    )
    write_high_watermark: float = Field(0.8, gt=0, le=1, description="fill that starts write mode (ramulator)")
    write_low_watermark: float = Field(0.2, ge=0, lt=1, description="fill that ends write mode (ramulator)")
    page: PagePolicy = PagePolicy.OPEN
    dual_command: bool = Field(False, description="a row and a column command may issue in the same cycle (HBM)")


class Currents(_Part):
    """Supply voltage in volts and data-sheet currents per device in milliamperes."""

    VDD: float = Field(gt=0, le=5)
    IDD0: float = Field(ge=0)
    IDD2N: float = Field(ge=0)
    IDD3N: float = Field(ge=0)
    IDD4R: float = Field(ge=0)
    IDD4W: float = Field(ge=0)
    IDD5AB: float = Field(ge=0)


class PerAccessEnergy(_Part):
    """Energy of a row activation and of one transferred bit, input and output included, in picojoules."""

    activate_pj: float = Field(ge=0)
    bit_pj: float = Field(ge=0)


class DramConfig(_Part):
    """A memory system: organization, timing, controller, energy.

    Raises
    ------
    pydantic.ValidationError
        on construction; `load_dram_config` turns it into a one-line `InputError`.
    """

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    provenance: Provenance
    clock_ns: float = Field(gt=0, le=100, description="period of the command clock")
    organization: Organization
    address_mapping: tuple[Literal["row", "rank", "bank_group", "bank", "column", "pseudo_channel", "channel"], ...] = (
        Field(
            description="fields of an address from the most to the least significant; one of a single value may be left out"
        )
    )
    timing: Timing
    controller: Controller = Controller()
    currents: Currents | None = Field(
        None, description="current-based energy (specification `simulators`, section 3.2)"
    )
    per_access_energy: PerAccessEnergy | None = None
    sources: dict[str, str] = Field(description="section or dotted field -> where its numbers come from")

    @model_validator(mode="after")
    def _consistent(self) -> DramConfig:
        organization, controller = self.organization, self.controller
        needed = [field for field in MAPPING_FIELDS if organization.field_size(field) > 1]
        if len(set(self.address_mapping)) < len(self.address_mapping) or not set(needed) <= set(self.address_mapping):
            raise ValueError(
                f"address_mapping must name {', '.join(needed)} once, got {', '.join(self.address_mapping)}"
            )
        sizes = {
            "channels": organization.channels,
            "pseudo_channels": organization.pseudo_channels,
            "ranks": organization.ranks,
            "bank_groups": organization.bank_groups,
            "banks_per_group": organization.banks_per_group,
            "rows": organization.rows,
            "row_bytes": organization.row_bytes,
            "bus_bits": organization.bus_bits,
            "burst_length": organization.burst_length,
            "transfers_per_clock": organization.transfers_per_clock,
        }
        for field, size in sizes.items():
            if size & (size - 1):
                raise ValueError(f"organization.{field} must be a power of two, got {size}")
        if organization.banks_per_channel > MAX_BANKS_PER_CHANNEL:
            raise ValueError(
                f"organization has {organization.banks_per_channel} banks per channel; allowed: at most "
                f"{MAX_BANKS_PER_CHANNEL}"
            )
        if organization.burst_cycles < 1:
            raise ValueError("organization.burst_length must be at least transfers_per_clock")
        if organization.row_bytes < organization.access_bytes:
            raise ValueError(
                f"organization.row_bytes must hold one access of {organization.access_bytes} bytes, "
                f"got {organization.row_bytes}"
            )
        if controller.policy is Policy.DRAMSIM3:
            if organization.pseudo_channels > 1:
                raise ValueError(
                    "organization.pseudo_channels must be 1 under the dramsim3 policy; count each pseudo-channel as a channel"
                )
            if controller.dual_command and organization.ranks > 1:
                raise ValueError("controller.dual_command needs organization.ranks = 1 under the dramsim3 policy")
        elif controller.page is not PagePolicy.OPEN:
            raise ValueError("controller.page must be open under the ramulator policy")
        shortest = organization.ranks * self.timing.shortest_refresh_interval
        if self.timing.tREFI < shortest:
            raise ValueError(
                f"timing.tREFI must be at least organization.ranks x (tRFC + 2 tRC) = {shortest}, or refreshes leave "
                f"no time to open, use and close a row; got {self.timing.tREFI}"
            )
        for section in ("clock_ns", "organization", "timing", "controller", "currents", "per_access_energy"):
            if getattr(self, section) is not None and section not in self.sources:
                raise ValueError(f"sources must name where {section} comes from")
        return self

    @property
    def peak_bytes_per_second(self) -> float:
        """Bytes per second that the pins of all channels can move."""
        organization = self.organization
        bits = organization.channels * organization.pseudo_channels * organization.bus_bits
        return bits * organization.transfers_per_clock / 8 / (self.clock_ns * 1e-9)

    def source_of(self, field: str) -> str:
        """Where the number at a dotted path (for example `timing.tRFC`) comes from."""
        return self.sources.get(field) or self.sources[field.partition(".")[0]]
