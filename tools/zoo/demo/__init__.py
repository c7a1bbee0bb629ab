"""The demonstration network: rendered data, ONNX graph, training, export."""
