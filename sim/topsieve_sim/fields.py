"""YAML files of typed fields: shipped presets, a user's files, `a.b=value` overrides, one-line errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from topsieve_sim.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class PresetFolder:
    """YAML files `<folder>/<name>.yaml` inside `package`; `kind` names in errors what they describe."""

    package: str
    folder: str
    kind: str

    def names(self) -> tuple[str, ...]:
        """Names of the shipped presets, sorted."""
        entries = (files(self.package) / self.folder).iterdir()
        return tuple(sorted(p.name.removesuffix(".yaml") for p in entries if p.name.endswith(".yaml")))

    def load(self, model: type[Model], source: str | Path, overrides: Iterable[str] = ()) -> Model:
        """Read a preset by name or a YAML file by path, apply `key.path=value` overrides, validate.

        Raises
        ------
        InputError
            unknown preset, unreadable or malformed YAML, unknown field, value out of range.
        """
        name, text = self._read(source)
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
            problem = getattr(error, "problem", None) or "not valid YAML"
            raise InputError(f"not valid YAML: {problem}", source=name, field=where) from error
        if not isinstance(data, dict):
            raise InputError("the file must hold a mapping of fields", source=name)
        for override in overrides:
            _apply_override(data, override)
        return validated(model, data, name)

    def _read(self, source: str | Path) -> tuple[str, str]:
        if isinstance(source, str) and source in self.names():
            resource = files(self.package) / self.folder / f"{source}.yaml"
            return f"preset {source}", resource.read_text(encoding="utf-8")
        path = Path(source)
        if path.suffix not in {".yaml", ".yml"} and not path.exists():
            allowed = ", ".join(self.names()) + ", or a YAML file"
            raise InputError(f"unknown {self.kind}", value=str(source), allowed=allowed)
        try:
            return str(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError("not a UTF-8 text file", source=str(path)) from error
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error


def validated(model: type[Model], data: Any, source: str) -> Model:
    """Build `model` from plain data; the first problem becomes a one-line `InputError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"unknown field{more}", source=source, field=field, allowed=_siblings(model, first["loc"])
            ) from error
        if first["type"] == "missing":
            raise InputError(f"required field is missing{more}", source=source, field=field) from error
        message = str(first["msg"]).removeprefix("Value error, ")
        value = None if first["type"] == "value_error" else first["input"]
        raise InputError(
            message[0].lower() + message[1:] + more,
            source=source,
            field=field,
            value=value,
            allowed=_range(model, first["loc"]),
        ) from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError("malformed override", source="--set", value=override, allowed="field.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError("value is not valid YAML", source="--set", field=path, value=text) from error
    target = data
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError("not a group of fields", source="--set", field=path)
        target = inner
    target[keys[-1]] = value


def _owner(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    owner: type[BaseModel] = model
    for part in location[:-1]:
        info = owner.model_fields.get(str(part))
        if info is None or not isinstance(info.annotation, type) or not issubclass(info.annotation, BaseModel):
            return None
        owner = info.annotation
    return owner


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    owner = _owner(model, location)
    return ", ".join(owner.model_fields) if owner else None


def _range(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    owner = _owner(model, location)
    info = owner.model_fields.get(str(location[-1])) if owner and location else None
    if info is None:
        return None
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, key)}" for rule in info.metadata for key, sign in signs.items() if hasattr(rule, key)
    ]
    return " and ".join(bounds) or None
