"""The encoder: sentences, ONNX graph with an additive attention mask, training."""
