"""Control and status registers: one table, from which RTL, C header, documentation and driver follow."""

from topsieve_rtl.csr.accelerator_map import ACCELERATOR_MAP, fixed_fields, report_counters
from topsieve_rtl.csr.documents import c_header, markdown
from topsieve_rtl.csr.driver import Driver
from topsieve_rtl.csr.register_file import RegisterFile
from topsieve_rtl.csr.table import Access, Counter, Field, Register, RegisterMap

__all__ = [
    "ACCELERATOR_MAP",
    "Access",
    "Counter",
    "Driver",
    "Field",
    "Register",
    "RegisterFile",
    "RegisterMap",
    "c_header",
    "fixed_fields",
    "markdown",
    "report_counters",
]
