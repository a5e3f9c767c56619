"""What `topsieve synth` prints and `docs/resources.md` holds: a unit on one or more FPGA families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from topsieve_rtl.synthesis.kept import kept_measurement, measure
from topsieve_rtl.synthesis.parts import Measurable
from topsieve_rtl.synthesis.place import DEFAULT_PLACEMENT, DEVICE_TITLE, Placement, Timing
from topsieve_rtl.synthesis.synthesise import TARGET_TITLES, Resources, Target
from topsieve_rtl.units import find_unit
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole


@dataclass(frozen=True)
class Report:
    """A unit of one configuration on one family; `timing` only where place and route is possible and was asked for."""

    unit: str
    config_name: str
    config_digest: str
    resources: Resources
    timing: Timing | None
    tool: str


def report_unit(
    unit: str | Measurable,
    config: AcceleratorConfig,
    targets: Sequence[Target | str] = (Target.ECP5,),
    *,
    placement: Placement | None = DEFAULT_PLACEMENT,
    keep: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Report]:
    """Synthesise a unit for each family; place and route it on ECP5, unless `placement` is None.

    Parameters
    ----------
    placement : seed and clock for ECP5.
    keep : results stay in the build folder, and those that are there are taken.
    progress : called with a line before each step.

    Raises
    ------
    InputError
        unknown unit or family.
    MissingToolError
        yosys or nextpnr is not installed.
    """
    unknown = [target for target in targets if target not in set(Target)]
    if unknown:
        raise InputError("unknown FPGA family", field="target", value=unknown[0], allowed=", ".join(Target))
    chosen = find_unit(unit) if isinstance(unit, str) else unit
    design = chosen.emitted(config)
    measured = kept_measurement if keep else measure
    reports = []
    for target in map(Target, targets):

        def step(action: str, target: Target = target) -> None:
            if progress:
                progress(f"{action} {design.name} for {TARGET_TITLES[target]}")

        found = measured(design.verilog, design.name, target, placement if target is Target.ECP5 else None, step)
        reports.append(Report(chosen.name, config.name, config.digest, found.resources, found.timing, found.tool))
    return reports


def resource_table(reports: Sequence[Report]) -> str:
    """Markdown table. With a clock the counts are those after place and route, otherwise yosys' estimates."""
    rows = [
        "| unit | configuration | family | LUT | FF | block RAM | multiplier blocks | Fmax (MHz) | from |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for report in reports:
        counts: Resources | Timing = report.timing or report.resources
        fmax = f"{report.timing.fmax_mhz:.1f}" if report.timing else "-"
        origin = f"{report.timing.tool}, seed {report.timing.seed}" if report.timing else "yosys, before placement"
        rows.append(
            f"| {report.unit} | {report.config_name} | {TARGET_TITLES[report.resources.target]} | {counts.luts} "
            f"| {counts.flip_flops} | {counts.block_rams:g} | {counts.dsps} | {fmax} | {report.tool}; {origin} |"
        )
    return "\n".join(rows)


@dataclass(frozen=True)
class Build:
    """What to measure for the resource page: a unit on a preset, with overrides, on some families."""

    unit: str | Measurable
    preset: str
    overrides: tuple[str, ...] = ()
    targets: tuple[Target, ...] = tuple(Target)
    placement: Placement | None = DEFAULT_PLACEMENT


def write_resources(
    path: str | Path, sections: Mapping[str, Sequence[Build]], *, progress: Callable[[str], None] | None = None
) -> None:
    """Write the resource page: a table for each section, under its title.

    Measurements are kept in the build folder, so a run that was interrupted goes on where it was.

    Raises
    ------
    InputError
        unknown unit or preset, or a path that cannot be written.
    """
    text = f"""# FPGA resources

Written by `make resources`. Rows with an Fmax are placed and routed on an {DEVICE_TITLE}, out of context (ports stay
inside the chip). The other rows are yosys' counts before placement; there is no open place and route for Xilinx
families, and the vendor's tools will differ. LUT counts include adders and distributed RAM. A 7-series or UltraScale+
block RAM is one of 36 kbit, one of ECP5 of 18 kbit, one of iCE40 of 4 kbit.
"""
    for title, builds in sections.items():
        text += f"\n## {title}\n\n{resource_table(_measured(builds, progress))}\n"
    with written_whole(path) as stream:
        stream.write(text)


def _measured(builds: Sequence[Build], progress: Callable[[str], None] | None) -> list[Report]:
    reports = []
    for build in builds:
        config = load_config(build.preset, build.overrides)
        label = ", ".join((build.preset, *build.overrides))
        for report in report_unit(
            build.unit, config, build.targets, placement=build.placement, keep=True, progress=progress
        ):
            reports.append(replace(report, config_name=label))
    return reports
