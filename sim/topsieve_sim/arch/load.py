"""Accelerator configurations in and out: presets, files, overrides, resolved YAML, JSON schema."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.fields import PresetFolder
from topsieve_sim.files import written_whole

PRESETS = PresetFolder("topsieve_sim.arch", "presets", "accelerator")


def preset_names() -> tuple[str, ...]:
    """Names of the shipped presets, sorted."""
    return PRESETS.names()


def load_config(source: str | Path, overrides: Iterable[str] = ()) -> AcceleratorConfig:
    """Read a preset by name or a YAML file by path, apply `key.path=value` overrides, validate.

    Raises
    ------
    InputError
        unknown preset, unreadable or malformed YAML, unknown field, value out of range.
    """
    return PRESETS.load(AcceleratorConfig, source, overrides)


def dump_config(config: AcceleratorConfig, path: str | Path) -> None:
    """Write the fully resolved configuration as YAML."""
    with written_whole(path) as stream:
        stream.write(config_yaml(config))


def config_yaml(config: AcceleratorConfig) -> str:
    """The fully resolved configuration as YAML text; `load_config` reads it back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def json_schema() -> dict[str, Any]:
    """JSON schema of a configuration file."""
    return AcceleratorConfig.model_json_schema()
