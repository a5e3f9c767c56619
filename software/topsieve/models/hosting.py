"""What every reduction needs of transformers: registering attention under a name, and the kernel it stands in for."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from topsieve.models.families import REDUCED_PREFIX

_NUMBERS = itertools.count()


class Entered:
    """A reduction that is on its model for the length of a `with` block; `__enter__` sets what undoes it."""

    _undo: ExitStack | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._undo is not None
        undo, self._undo = self._undo, None
        undo.close()


def unused_name() -> str:
    """A name for an attention implementation that no other reduction has."""
    return f"{REDUCED_PREFIX}{next(_NUMBERS)}"


def registered(undo: ExitStack, interface: Any, name: str, function: Any) -> None:
    """Register `function` with a transformers interface until `undo` closes."""
    interface.register(name, function)
    undo.callback(interface._global_mapping.pop, name, None)


def attention_kernel(implementation: str, module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The attention function that `implementation` stands for in the file of `module`."""
    if implementation == "eager":
        eager: Callable[..., tuple[Tensor, Any]] = sys.modules[type(module).__module__].eager_attention_forward
        return eager
    known: Callable[..., tuple[Tensor, Any]] = AttentionInterface._global_mapping[implementation]
    return known
