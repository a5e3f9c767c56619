"""Memory configurations in: preset or YAML file, `a.b=value` overrides, one-line errors."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from topsieve_sim.arch.load import validated
from topsieve_sim.dram.config import DramConfig
from topsieve_sim.errors import InputError


def dram_preset_names() -> tuple[str, ...]:
    """Names of the shipped presets, sorted."""
    folder = files("topsieve_sim.dram") / "presets"
    return tuple(sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")))


def load_dram_config(source: str | Path, overrides: Iterable[str] = ()) -> DramConfig:
    """Read a preset by name or a YAML file by path, apply `field.path=value` overrides, validate.

    Raises
    ------
    InputError
        unknown preset, unreadable or malformed YAML, unknown field, value out of range.
    """
    name, text = _read(source)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise InputError("not valid YAML", source=name, field=where) from error
    if not isinstance(data, dict):
        raise InputError("the file must hold a mapping of fields", source=name)
    for override in overrides:
        _apply(data, override)
    return validated(DramConfig, data, name)


def _read(source: str | Path) -> tuple[str, str]:
    if isinstance(source, str) and source in dram_preset_names():
        resource = files("topsieve_sim.dram") / "presets" / f"{source}.yaml"
        return f"preset {source}", resource.read_text(encoding="utf-8")
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        raise InputError(
            "unknown memory", value=str(source), allowed=", ".join(dram_preset_names()) + ", or a YAML file"
        )
    try:
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not a UTF-8 text file", source=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error


def _apply(data: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError("malformed override", source="--set", value=override, allowed="field.path=value")
    target = data
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError("not a group of fields", source="--set", field=path)
        target = inner
    try:
        target[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError("value is not valid YAML", source="--set", field=path, value=text) from error
