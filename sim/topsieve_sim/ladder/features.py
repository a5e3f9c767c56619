"""What the successor has and the published machine has not, each as fields of the configuration, in the order of the ladder."""

from __future__ import annotations

from dataclasses import dataclass

PUBLISHED = "spatten"


@dataclass(frozen=True)
class Feature:
    """One step of the ladder.

    name : in tables. fields : `field=value` of the machine. needs : fields that stand below it where it is measured alone.
    shares_keys : query heads of one key-value head use what was loaded once; without it each loads its own.
    """

    name: str
    fields: tuple[str, ...]
    needs: tuple[str, ...] = ()
    shares_keys: bool = False


_TERMINATION = ("successor.termination_threshold=0.001",)

FEATURES: tuple[Feature, ...] = (
    Feature("grouped queries share keys", (), shares_keys=True),
    Feature("radix select in two passes", ("topk.selector=radix", "topk.radix_bits=6")),
    Feature("sixteen score lanes", ("softmax.lanes=16",)),
    Feature("short heads share buffers", ("successor.buffered_heads=16",)),
    Feature("keys end early", _TERMINATION),
    Feature("bound taken by tiles of 128 keys", ("successor.tile_keys=128",), needs=_TERMINATION),
)

# In closed loop with the DRAM: no tiles there.
IN_LOOP: tuple[Feature, ...] = (
    *FEATURES[:-1],
    Feature("eviction", ("successor.evict=true",)),
    Feature("paged layout", ("memory.dram.layout=paged",)),
)
