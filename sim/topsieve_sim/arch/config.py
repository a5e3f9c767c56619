"""`AcceleratorConfig`: one frozen object that the simulator, the RTL, the energy tables and the emitter share."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from topsieve_sim.arch.formats import SCORE_MULTIPLIER_BITS, NumberFormats


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SelectorKind(StrEnum):
    """Which engine finds the k-th largest score."""

    QUICK = "quick"
    RADIX = "radix"
    BITONIC = "bitonic"


class ArrayConfig(_Part):
    """A multiplier array with its operand buffer (the dot-product array or the weighted-sum array)."""

    multipliers: int = Field(ge=1, le=8192, description="multipliers working in parallel")
    lane_split: int = Field(
        8, ge=1, le=512, description="head dimensions are padded to a multiple of this many multipliers"
    )

    def interval_cycles(self, rows: int, head_dim: int) -> int:
        """Cycles that `rows` rows of `head_dim` elements occupy the multipliers: ceil(rows * padded / multipliers)."""
        padded = -(-head_dim // self.lane_split) * self.lane_split
        return max(1, -(-rows * padded // self.multipliers))


class SoftmaxConfig(_Part):
    """Fixed-point softmax: three passes over a row buffer."""

    lanes: int = Field(ge=1, le=128, description="scores per beat; the beat width of every score stream")


class TopKConfig(_Part):
    """One top-k engine; the machine has two of them (local values; tokens and heads)."""

    selector: SelectorKind = SelectorKind.QUICK
    parallelism: int = Field(ge=1, le=128, description="elements per beat inside the engine (P), a power of two")
    seed: int = Field(0xACE1, ge=1, le=0xFFFF, description="initial state of the pivot LFSR, never 0")
    radix_bits: int = Field(4, ge=1, le=8, description="bits resolved per histogram pass of the radix selector")

    @field_validator("parallelism")
    @classmethod
    def _power_of_two(cls, parallelism: int) -> int:
        if parallelism & (parallelism - 1):
            raise ValueError("must be a power of two")
        return parallelism


class ProgressiveConfig(_Part):
    """Progressive quantisation: fetch the LSB plane of K when the largest probability is under the threshold."""

    enabled: bool = True
    threshold: float = Field(0.1, ge=0.0, le=1.0, description="SpAtten section III-D; 0.05 in the GPT-2 trace")


class ImportanceConfig(_Part):
    """Token and head importance accumulators."""

    heads: int = Field(16, ge=1, le=256, description="head accumulators")


class MemoryModel(StrEnum):
    """What answers the fetchers."""

    IDEAL = "ideal"  # fixed latency, one beat per cycle and channel, no conflicts, no fetcher
    AXI = "axi"  # plane fetchers and AXI4 ports; fixed latency behind each port
    DRAM = "dram"  # request ports and a crossbar before the command-level DRAM model


class AxiConfig(_Part):
    """The AXI4 ports of a machine whose operands come through plane fetchers; not used by `memory.model: ideal`."""

    burst_words: int = Field(16, ge=1, le=256, description="longest burst, in bus words")
    outstanding: int = Field(4, ge=1, le=256, description="bursts of a port asked for and not yet answered in full")
    buffer_words: int = Field(32, ge=1, le=65_536, description="response buffer of a fetcher, at least a burst")
    merge_bytes: int = Field(0, ge=0, le=1 << 20, description="contiguous rows share bursts up to this many bytes")
    address_bits: int = Field(32, ge=12, le=62, description="width of an address; higher address bits are ignored")

    @model_validator(mode="after")
    def _burst_fits(self) -> AxiConfig:
        if self.buffer_words < self.burst_words:
            raise ValueError(f"buffer_words must be at least burst_words = {self.burst_words}, got {self.buffer_words}")
        return self


class Layout(StrEnum):
    """Where rows of keys and values lie in memory."""

    HEAD_MAJOR = "head_major"  # a region a plane; all tokens of a head follow each other
    TOKEN_MAJOR = "token_major"  # a region a plane; all heads of a token follow each other
    PAGED = "paged"  # blocks of tokens of one head hold the rows of all planes


class DramPortConfig(_Part):
    """Request ports and crossbar before the DRAM; used by `memory.model: dram` alone."""

    preset: str = Field("hbm2-interleaved", description="DRAM preset or YAML file; it gets `memory.channels` channels")
    layout: Layout = Layout.HEAD_MAJOR
    page_tokens: int = Field(16, ge=1, le=65_536, description="tokens of a block of the paged layout")
    ports: int = Field(32, ge=1, le=256, description="request ports (SpAtten, Table I)")
    port_outstanding: int = Field(64, ge=1, le=4096, description="accesses of a port under way (SpAtten, IV-A)")
    crossbar_cycles: int = Field(4, ge=0, le=1000, description="core cycles from the controller to the fetcher")


# The widest data bus of AXI4 (AXI4 specification, section A1.2).
MAXIMUM_AXI_BYTES = 128


class MemoryConfig(_Part):
    """What stands behind the fetchers."""

    model: MemoryModel = MemoryModel.IDEAL
    channels: int = Field(ge=1, le=64)
    beat_bytes: int = Field(ge=1, le=256, description="bytes per channel and core cycle")
    latency_cycles: int = Field(ge=1, le=10_000, description="core cycles from request to first beat")
    axi: AxiConfig = AxiConfig()
    dram: DramPortConfig = DramPortConfig()

    @model_validator(mode="after")
    def _bus_exists(self) -> MemoryConfig:
        width = self.bytes_per_cycle
        if self.has_fetchers and (width & (width - 1) or width > MAXIMUM_AXI_BYTES):
            raise ValueError(
                f"channels x beat_bytes must be a power of two up to {MAXIMUM_AXI_BYTES}, the width of an AXI4 port, "
                f"got {self.channels} x {self.beat_bytes} = {width}"
            )
        return self

    @property
    def has_fetchers(self) -> bool:
        """Whether plane fetchers with AXI4 ports bring the operands."""
        return self.model is MemoryModel.AXI

    @property
    def bytes_per_cycle(self) -> int:
        """Peak bytes per core cycle over all channels."""
        return self.channels * self.beat_bytes


class SuccessorConfig(_Part):
    """What the published machine does not have. Everything is off by default, and no Verilog of it exists.

    `docs/successor.md` describes each feature, what it costs and what it gains.
    """

    buffered_heads: int = Field(
        0,
        ge=0,
        le=64,
        description="key-value heads that share the key and value buffers, as many as fit; 0 = one a bank",
    )
    evict: bool = Field(False, description="pruned tokens leave memory, newer ones take their places")
    termination_threshold: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="a key whose probability must stay below this ends with its MSB plane (decoding); 0 = off",
    )
    termination_rows: int = Field(
        1, ge=1, le=64, description="query heads of one key-value head up to which keys end early; each runs twice"
    )
    tile_keys: int = Field(
        0, ge=0, le=65_536, description="keys after which a bound is taken and values are asked for; 0 = the whole row"
    )
    partial_rows: int = Field(
        4, ge=2, le=64, description="rows of full capacity that the store of first-pass sums holds (early termination)"
    )

    @property
    def terminates(self) -> bool:
        """Whether keys end early."""
        return self.termination_threshold > 0

    @property
    def features(self) -> tuple[str, ...]:
        """The fields that are not as on the published machine."""
        standard = SuccessorConfig()
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(standard, name))


class AcceleratorConfig(_Part):
    """The whole machine. Presets are YAML files in `topsieve_sim/arch/presets` that a user can copy.

    Raises
    ------
    pydantic.ValidationError
        on construction; `load_config` turns it into a one-line `InputError`.
    """

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    clock_mhz: float = Field(gt=0, le=10_000)
    capacity: int = Field(ge=2, le=65_536, description="longest row of keys, in tokens")
    max_head_dim: int = Field(ge=1, le=512)
    double_buffer: bool = Field(True, description="row, key and value buffers are doubled (ping-pong)")
    formats: NumberFormats
    dot_product: ArrayConfig
    softmax: SoftmaxConfig
    topk: TopKConfig
    weighted_sum: ArrayConfig
    progressive: ProgressiveConfig
    importance: ImportanceConfig
    memory: MemoryConfig
    fully_connected: bool = Field(
        False,
        description="run projections and FFN on the arrays too (SpAtten-e2e); otherwise the host runs them",
    )
    technology: str = Field(
        "40nm",
        pattern=r"^([a-z0-9_]+|.*[/\\].*|.*\.ya?ml)$",
        description="name of an energy and area table, a YAML file of one, or a folder with ERT.yaml and ART.yaml",
    )
    successor: SuccessorConfig = SuccessorConfig()

    @model_validator(mode="after")
    def _consistent(self) -> AcceleratorConfig:
        if self.dot_product.multipliers % self.dot_product.lane_split:
            raise ValueError(
                f"dot_product.multipliers must be a multiple of lane_split = {self.dot_product.lane_split}, "
                f"got {self.dot_product.multipliers}"
            )
        if self.weighted_sum.multipliers % self.weighted_sum.lane_split:
            raise ValueError(
                f"weighted_sum.multipliers must be a multiple of lane_split = {self.weighted_sum.lane_split}, "
                f"got {self.weighted_sum.multipliers}"
            )
        for name, array in (("dot_product", self.dot_product), ("weighted_sum", self.weighted_sum)):
            segments = array.multipliers // array.lane_split
            # A segment then serves the same lanes in every cycle, so no crossbar stands before the accumulators.
            if segments % self.softmax.lanes and self.softmax.lanes % segments:
                raise ValueError(
                    f"{name}.multipliers / lane_split must divide softmax.lanes = {self.softmax.lanes} or be a multiple "
                    f"of it, got {array.multipliers} / {array.lane_split} = {segments}"
                )
        if self.memory.has_fetchers and self.dot_product.lane_split != self.weighted_sum.lane_split:
            # A beat of the fetcher is one chunk of a row, whichever bank it goes to.
            raise ValueError(
                f"dot_product.lane_split and weighted_sum.lane_split must be equal with memory.model = "
                f"{self.memory.model.value}, got {self.dot_product.lane_split} and {self.weighted_sum.lane_split}"
            )
        if self.successor.features and self.memory.has_fetchers:
            raise ValueError(
                f"successor.{self.successor.features[0]} must be left out with memory.model = {self.memory.model.value}: "
                "that is the machine of the Verilog, which cannot do it"
            )
        if self.successor.tile_keys and self.memory.model is not MemoryModel.IDEAL:
            raise ValueError(
                f"successor.tile_keys must be 0 with memory.model = {self.memory.model.value}: requests by tiles are timed on "
                f"the ideal memory alone, got {self.successor.tile_keys}"
            )
        if self.successor.tile_keys % self.softmax.lanes:
            raise ValueError(
                f"successor.tile_keys must be a multiple of softmax.lanes = {self.softmax.lanes}, "
                f"got {self.successor.tile_keys}"
            )
        scaled = self.formats.dot_product_bits(self.max_head_dim) + SCORE_MULTIPLIER_BITS
        if scaled > 63:
            raise ValueError(
                f"formats.query_bits + key bits are too many for max_head_dim = {self.max_head_dim}: a scaled dot product "
                f"must fit 63 bits, got {scaled}"
            )
        if self.topk.parallelism % self.softmax.lanes and self.softmax.lanes % self.topk.parallelism:
            raise ValueError(
                f"topk.parallelism must divide softmax.lanes = {self.softmax.lanes} or be a multiple of it, "
                f"got {self.topk.parallelism}"
            )
        return self

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the resolved configuration; printed in reports and Verilog.

        A machine without successor features has the digest it had before there were any.
        """
        data = self.model_dump(mode="json")
        if not self.successor.features:
            del data["successor"]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def microseconds(self, cycles: int) -> float:
        """Duration of `cycles` core cycles in microseconds."""
        return cycles / self.clock_mhz
