"""Random jobs for the whole machine: layers with all flags, their tensors somewhere in memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import DESCRIPTOR_BYTES, FACTOR_BYTES, REPORT_RECORD_BYTES
from topsieve_sim.golden.byte_memory import packed
from topsieve_sim.golden.descriptor import Descriptor, Flag, encode_descriptor

_SPARE = 16


@dataclasses.dataclass
class DrawnJob:
    """A memory image with the job's descriptors from address 0 on, as bytes and as objects."""

    image: bytearray
    descriptors: list[Descriptor]
    threshold: int

    def replace(self, layer: int, **fields: object) -> DrawnJob:
        """The same job with other fields in one descriptor."""
        image = bytearray(self.image)
        descriptors = list(self.descriptors)
        descriptors[layer] = dataclasses.replace(descriptors[layer], **fields)
        image[layer * DESCRIPTOR_BYTES : (layer + 1) * DESCRIPTOR_BYTES] = encode_descriptor(descriptors[layer])
        return DrawnJob(image, descriptors, self.threshold)


class _Image:
    """Grows by tensors at random distances; always whole bus words."""

    def __init__(self, config: AcceleratorConfig, generator: np.random.Generator, size: int) -> None:
        self.bus = config.memory.bytes_per_cycle
        self.generator = generator
        self.data = bytearray(size)

    def _align(self) -> None:
        self.data += bytes(-len(self.data) % self.bus)

    def place(self, size: int) -> int:
        """Room from a multiple of the bus width on, filled with noise."""
        self._align()
        address = len(self.data)
        self.data += self.generator.bytes(size)
        return address

    def tensor(self, values: np.ndarray, bits: int) -> tuple[int, int, int]:
        """Rows [heads, rows, elements]: address, distances of rows and of heads."""
        heads, rows, elements = values.shape
        self.data += self.generator.bytes(int(self.generator.integers(0, 9)))
        row_bytes = (elements * bits + 7) // 8 + int(self.generator.choice([0, 0, 3]))
        address = len(self.data)
        for row in packed(values.reshape(heads * rows, elements), bits):
            self.data += row.ljust(row_bytes, b"\xa5")
        return address, row_bytes, rows * row_bytes


def draw_job(
    config: AcceleratorConfig,
    generator: np.random.Generator,
    layers: int,
    tokens: int,
    queries: int = 3,
    heads: int | None = None,
    interrupts: bool = True,
) -> DrawnJob:
    """A job of `layers` layers of one sequence of `tokens` tokens, of up to `heads` query heads.

    A head has up to `queries` queries where they are not live. Descriptors begin at address 0; without `interrupts` only
    the last one ends with an interrupt.
    """
    formats = config.formats
    image = _Image(config, generator, layers * DESCRIPTOR_BYTES)
    most = min(config.importance.heads, heads or config.importance.heads)
    group = int(generator.choice([1, 1, *range(1, most + 1)]))
    kv_heads = int(generator.integers(1, most // group + 1))
    live, alive = tokens, kv_heads * group
    descriptors = []
    for layer in range(layers):
        flags = Flag.LAST if layer == layers - 1 else Flag(0)
        if layer == 0 or generator.random() < 0.1:
            flags |= Flag.RESET_TOKENS | Flag.RESET_HEADS
            live, alive = tokens, kv_heads * group
        if layer == 0 or generator.random() < 0.2:
            flags |= Flag.CLEAR_IMPORTANCE
        likely = [Flag.LIVE_TOKENS, Flag.ACCUMULATE_TOKENS, Flag.ACCUMULATE_HEADS, Flag.PRUNE_TOKENS, Flag.REPORT]
        rare = [Flag.CAUSAL, Flag.LIVE_QUERIES, Flag.PROGRESSIVE, *([Flag.INTERRUPT] if interrupts else [])]
        if formats.key_lsb_bits == 0:
            rare.remove(Flag.PROGRESSIVE)
        if group == 1:
            likely += [Flag.LIVE_HEADS, Flag.PRUNE_HEADS]
        for flag in likely:
            flags |= flag if generator.random() < 0.7 else Flag(0)
        for flag in rare:
            flags |= flag if generator.random() < 0.4 else Flag(0)

        keys = tokens if Flag.RESET_TOKENS in flags else int(generator.integers(1, tokens + 1))
        row = live if Flag.LIVE_TOKENS in flags else keys
        head_dim = int(generator.integers(1, config.max_head_dim + 1))

        def numbers(heads: int, rows: int, bits: int, head_dim: int = head_dim) -> np.ndarray:
            limit = 1 << (bits - 1)
            return generator.integers(-limit, limit, (heads, rows, head_dim))

        planes = {
            "query": image.tensor(numbers(kv_heads * group, tokens, formats.query_bits), formats.query_bits),
            "key_msb": image.tensor(numbers(kv_heads, tokens, formats.key_msb_bits), formats.key_msb_bits),
            "value": image.tensor(numbers(kv_heads, tokens, formats.value_bits), formats.value_bits),
        }
        if formats.key_lsb_bits:
            planes["key_lsb"] = image.tensor(numbers(kv_heads, tokens, formats.key_lsb_bits), formats.key_lsb_bits)
        output_row = -(-((head_dim * formats.output_bits + 7) // 8) // image.bus) * image.bus
        records = 1 + tokens + config.importance.heads
        fields: dict[str, int] = {}
        for name, (address, row_bytes, head_bytes) in planes.items():
            fields |= {name: address, f"{name}_row_bytes": row_bytes, f"{name}_head_bytes": head_bytes}
        keep = int(generator.integers(1, live + 2))
        keep_heads = int(generator.integers(1, alive + 2))
        factors = image.place(FACTOR_BYTES * kv_heads * group)
        for head in range(kv_heads * group):
            # Scores of a few units: a softmax that is neither flat nor a single one.
            shift = formats.query_bits + formats.key_bits + 6 + int(generator.integers(0, 4))
            word = int(generator.integers(1 << 15, 1 << 16)) | shift << 16
            image.data[factors + 4 * head : factors + 4 * head + 4] = word.to_bytes(4, "little")
        descriptors.append(
            Descriptor(
                flags=flags,
                keys=keys,
                queries=int(generator.integers(1, queries + 1)),
                kv_heads=kv_heads,
                group=group,
                head_dim=head_dim,
                kept_values=int(generator.choice([0, *range(1, row + 2)])),
                keep_tokens=keep,
                keep_heads=min(keep_heads, 255),
                output_row_bytes=output_row,
                output_head_bytes=output_row * tokens,
                output=image.place(output_row * tokens * kv_heads * group),
                factors=factors,
                report=image.place(REPORT_RECORD_BYTES * records),
                **fields,
            )
        )
        if Flag.PRUNE_TOKENS in flags:
            live = min(live, keep)
        if Flag.PRUNE_HEADS in flags:
            alive = min(alive, keep_heads)
    image.place(_SPARE)
    for layer, descriptor in enumerate(descriptors):
        image.data[layer * DESCRIPTOR_BYTES : (layer + 1) * DESCRIPTOR_BYTES] = encode_descriptor(descriptor)
    threshold = int(generator.integers(0, 1 << formats.probability_bits))
    return DrawnJob(image.data, descriptors, threshold)
