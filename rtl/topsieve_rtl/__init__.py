"""The accelerator in Amaranth HDL: streams, the top-k engine, the attention units and the Verilog emitter."""
