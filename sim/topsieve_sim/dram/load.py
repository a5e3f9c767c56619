"""Memory configurations in: preset or YAML file, `a.b=value` overrides, one-line errors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.fields import PresetFolder

PRESETS = PresetFolder("topsieve_sim.dram", "presets", "memory")


def dram_preset_names() -> tuple[str, ...]:
    """Names of the shipped presets, sorted."""
    return PRESETS.names()


def load_dram_config(source: str | Path, overrides: Iterable[str] = ()) -> DramConfig:
    """Read a preset by name or a YAML file by path, apply `field.path=value` overrides, validate.

    Raises
    ------
    InputError
        unknown preset, unreadable or malformed YAML, unknown field, value out of range.
    """
    return PRESETS.load(DramConfig, source, overrides)
