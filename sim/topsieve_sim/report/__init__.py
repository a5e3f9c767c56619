"""What a simulation says: the `Report`, its JSON and CSV files and its Perfetto trace."""

from topsieve_sim.report.model import (
    LayerRow,
    OperationRow,
    Report,
    SelectionCost,
    Slice,
    Stall,
    Timing,
    TokenRow,
    Traffic,
    Unit,
    UnitRow,
    load_report,
    report_schema,
)
from topsieve_sim.report.perfetto import perfetto_bytes, timeline_bytes, write_perfetto, write_timeline
from topsieve_sim.report.tables import csv_tables, write_csv
from topsieve_sim.report.timeline import Counter

__all__ = [
    "Counter",
    "LayerRow",
    "OperationRow",
    "Report",
    "SelectionCost",
    "Slice",
    "Stall",
    "Timing",
    "TokenRow",
    "Traffic",
    "Unit",
    "UnitRow",
    "csv_tables",
    "load_report",
    "perfetto_bytes",
    "report_schema",
    "timeline_bytes",
    "write_csv",
    "write_perfetto",
    "write_timeline",
]
