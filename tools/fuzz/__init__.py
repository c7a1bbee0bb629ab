"""Random valid graphs, and what must hold of each: ``python -m tools.fuzz --count=N --seed=S``.

A seed is a graph: one operator with random attributes, shapes, types and constants, or a network of
30 to 60 of them. The graph is built eagerly, every node is run in onnxruntime as it is added, so
that only what onnxruntime (or, where that has no kernel, ONNX's own evaluator) takes gets into it.
Then

- our float forward over a batch of samples equals onnxruntime, sample by sample, and so does the
  plain call of one sample;
- the optimized graph equals the original, in onnxruntime; what is saved and loaded is the same;
- the quantized forward equals the QDQ export in onnxruntime, unit by unit: every unit is fed what
  onnxruntime gives for its inputs, in INT8, INT16 and mixed types, with asymmetric, per-channel,
  compensated and dual-int16 operands;
- a configuration emitted for an assignment resolves to that assignment.

What differs is cut down to the few nodes that show it. `reasons` lists where onnxruntime itself
leaves the specification, `corpus` holds what was found once.
"""
