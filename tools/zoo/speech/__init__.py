"""The speech network: synthetic words, ONNX graph from frames to classes, training."""
