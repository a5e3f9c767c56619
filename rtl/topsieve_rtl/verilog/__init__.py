"""Verilog out of Amaranth: the conversion, and a unit as a package another engineer can use without Python."""
