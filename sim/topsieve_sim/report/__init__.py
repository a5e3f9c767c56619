"""What a simulation says: the `Report`, its JSON and CSV files and its Perfetto trace."""

from topsieve_sim.report.model import (
    LayerRow,
    OperationRow,
    Report,
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
from topsieve_sim.report.perfetto import perfetto_bytes, write_perfetto
from topsieve_sim.report.tables import csv_tables, write_csv

__all__ = [
    "LayerRow",
    "OperationRow",
    "Report",
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
    "write_csv",
    "write_perfetto",
]
