"""A method's parameters: read from its source without importing it, and parsed from text."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from topsieve_sim.errors import InputError

LIST_SEPARATOR = "/"


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its type as written, and its default as written."""

    name: str
    type: str
    default: str


@dataclass(frozen=True)
class MethodInfo:
    """What there is to say about a method without running it.

    Parameters
    ----------
    name : in the registry.
    target : `module:Class`.
    summary : first line of the class's docstring.
    description : the rest of the docstring, with the meaning of each parameter.
    parameters : in order.
    acts_on : "layers", the tokens of a model's layers (it has `stages`), "cache", a decoder's cache (it has `cache`),
        "prompt", the text before any model (it has `prompt`), "tuning", a decoder's fine-tuning (it has `tuning`), and
        "chunks", prompts made of chunks that were read before (it has `chunks`).
    """

    name: str
    target: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    acts_on: tuple[str, ...] = ("layers",)

    @property
    def takes_keep(self) -> bool:
        """Whether the method can be asked for a share of tokens."""
        return any(parameter.name == "keep" for parameter in self.parameters)


def read_info(name: str, target: str) -> MethodInfo:
    """Read a method's class from its source; only the packages above its module are imported.

    Raises
    ------
    InputError
        the module or the class does not exist.
    """
    module, _, class_name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise InputError("module not found", source=f"method {name}", value=target)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    body = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    if body is None:
        raise InputError("class not found", source=f"method {name}", value=target)
    lines = (ast.get_docstring(body) or "").split("\n")
    return MethodInfo(
        name=name,
        target=target,
        summary=lines[0],
        description="\n".join(lines[1:]).strip(),
        parameters=tuple(
            Parameter(
                node.target.id,
                ast.unparse(node.annotation),
                "" if node.value is None else ast.unparse(node.value),
            )
            for node in body.body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "ClassVar" not in ast.unparse(node.annotation)
        ),
        acts_on=tuple(
            kind
            for function, kind in (
                ("stages", "layers"),
                ("cache", "cache"),
                ("prompt", "prompt"),
                ("tuning", "tuning"),
                ("chunks", "chunks"),
            )
            if any(isinstance(node, ast.FunctionDef) and node.name == function for node in body.body)
        ),
    )


def parse_value(hint: Any, text: str) -> Any:
    """`text` as a value of the type `hint`; lists are written 30/20/10, "none" is None.

    Raises
    ------
    ValueError
        with what would have been accepted.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        return parse_value(next(argument for argument in arguments if argument is not types.NoneType), text)
    if origin is tuple:
        return tuple(parse_value(arguments[0], part) for part in text.split(LIST_SEPARATOR)) if text else ()
    if origin is Literal:
        if text not in arguments:
            raise ValueError(", ".join(map(str, arguments)))
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    parsers: dict[Any, tuple[Callable[[str], Any], str]] = {
        int: (int, "an integer"),
        float: (float, "a number"),
        str: (str, "text"),
    }
    parse, allowed = parsers[hint]
    try:
        return parse(text)
    except ValueError:
        raise ValueError(allowed) from None


def built(cls: type[Any], settings: str, *, source: str, defaults: Mapping[str, Any] | None = None) -> Any:
    """`cls` with its fields from `settings`: `parameter=value,parameter=value`.

    Parameters
    ----------
    source : who is built, for messages.
    defaults : values of fields, where `settings` does not say.

    Raises
    ------
    InputError
        a parameter is unknown or given twice, or its value is not allowed.
    """
    hints = typing.get_type_hints(cls)
    allowed = tuple(field.name for field in dataclasses.fields(cls) if field.init)
    listed = ", ".join(allowed) or "none, this method takes no parameters"
    values: dict[str, Any] = {}
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        parameter, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError("wrong setting", source=source, value=setting, allowed="parameter=value")
        if parameter not in allowed:
            raise InputError("unknown parameter", source=source, value=parameter, allowed=listed)
        if parameter in values:
            raise InputError("given twice", source=source, field=parameter, value=value, allowed="once")
        try:
            values[parameter] = parse_value(hints[parameter], value)
        except ValueError as error:
            raise InputError("wrong value", source=source, field=parameter, value=value, allowed=str(error)) from error
    for parameter, given in (defaults or {}).items():
        if parameter not in allowed:
            raise InputError("unknown parameter", source=source, value=parameter, allowed=listed)
        values.setdefault(parameter, given)
    return cls(**values)


def spell_value(value: object) -> str:
    """The text that `parse_value` turns back into `value`."""
    if isinstance(value, tuple):
        return LIST_SEPARATOR.join(map(spell_value, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value)
