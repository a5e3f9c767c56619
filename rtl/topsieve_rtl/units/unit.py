"""A hardware unit as the emitter, the synthesis report and the verification see it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import numpy as np
from amaranth.lib import wiring

from topsieve_rtl.cosim import Case, Channel, Design, Engine
from topsieve_rtl.cosim.design import View
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError

Built = TypeVar("Built")


class Unit(ABC):
    """One unit: its RTL, how to draw operands for it, and what the models say must happen.

    Class attributes
    ----------------
    name : word on the command line and in file names.
    summary : one line for the documents.
    port_notes : meaning of each port.
    latency_note : the latency formula, in Markdown.
    default_engine, default_cases : what `verify` runs where nothing else is asked for.
    serves_successor : the unit is the same in a machine with successor features.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    port_notes: ClassVar[Mapping[str, str]]
    latency_note: ClassVar[str]
    default_engine: ClassVar[Engine] = Engine.CXXRTL
    default_cases: ClassVar[int] = 200
    serves_successor: ClassVar[bool] = False

    @abstractmethod
    def component(self, config: AcceleratorConfig) -> wiring.Component:
        """A new instance of the RTL."""

    @abstractmethod
    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        """Random operands with random arrivals and stalls, every port named."""

    @abstractmethod
    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        """Every stream port's beats: payloads of the golden model at the cycles of the timing function.

        None in a payload stands for bits of any value; `views` says where the RTL's are to be seen so.
        """

    def views(self, config: AcceleratorConfig) -> Mapping[str, View]:
        """Per output stream, what of a beat is compared; everything by default."""
        return {}

    def compared(self, config: AcceleratorConfig, case: Case) -> Mapping[str, int]:
        """What the beats of `case` hold, in words and numbers that add up over cases; nothing beside beats by default."""
        return {}

    def emitted(self, config: AcceleratorConfig) -> Design:
        """What is emitted and measured: what `verify` drives, or what stands inside of it."""
        return self.design(config)

    def bench(self, config: AcceleratorConfig) -> Design | None:
        """What the emitted testbench drives, an instance of `emitted` inside; None if that is `emitted` itself."""
        return None

    def documents(self, config: AcceleratorConfig, command_line: str) -> Mapping[str, str]:
        """Further files of the package: name -> text."""
        return {}

    def design(self, config: AcceleratorConfig) -> Design:
        """A new instance, named for `config`, as `verify` drives it.

        Raises
        ------
        InputError
            the unit cannot be built with the values of `config`.
        """
        return self.built(config, lambda: Design(self.component(config), self.top_name(config), self.views(config)))

    def built(self, config: AcceleratorConfig, build: Callable[[], Built]) -> Built:
        """Result of `build`; its refusals as errors of input."""
        if config.successor.features and not self.serves_successor:
            raise InputError(
                f"the hardware cannot do what the machine is asked for; the unit {self.name} is that of the published one",
                source=config.name,
                field=f"successor.{config.successor.features[0]}",
                value=getattr(config.successor, config.successor.features[0]),
                allowed="the field left out; docs/successor.md",
            )
        try:
            return build()
        except ValueError as error:
            raise InputError(f"the unit {self.name} cannot be built: {error}", source=config.name) from error

    def top_name(self, config: AcceleratorConfig) -> str:
        """Name of the Verilog module and prefix of every module and file of the package."""
        words = re.findall(r"[a-z0-9]+", f"topsieve_{self.name}_{config.name}".lower())
        return "_".join(words)
