"""Benchmarks: ``python -m tools.bench NAME MODELS`` measures, prints a table and keeps the figures.

Cost is given in **f**: the time of one float forward of one sample by onnxruntime on the same
machine, measured in the same minutes (`tools.bench.clock`). Seconds of one machine say little about
another; ratios of interleaved rounds do.
"""
