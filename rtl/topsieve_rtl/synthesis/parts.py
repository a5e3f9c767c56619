"""Parts of the machine that are measured but are no unit of their own: what drives them is inside the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from amaranth.lib import wiring

from topsieve_rtl.cosim.design import Design
from topsieve_sim.arch import AcceleratorConfig


class Measurable(Protocol):
    """What `report_unit` needs of a unit."""

    @property
    def name(self) -> str:
        """Word in the table."""

    def emitted(self, config: AcceleratorConfig) -> Design:
        """What is measured."""


@dataclass(frozen=True)
class Part:
    """A component with a name."""

    name: str
    component: Callable[[AcceleratorConfig], wiring.Component]

    def emitted(self, config: AcceleratorConfig) -> Design:
        """The component."""
        words = re.findall(r"[a-z0-9]+", f"topsieve_{self.name}_{config.name}".lower())
        return Design(self.component(config), "_".join(words))


def attention_core() -> Part:
    """The attention unit of a machine with fetchers: banks, issue, arrays, softmax, value selection."""
    from topsieve_rtl.attention.core import AttentionCore

    return Part("attention_core", AttentionCore)
