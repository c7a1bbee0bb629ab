"""jptq: mixed-precision post-training quantization of ONNX networks, on JAX."""

__version__ = "0.1.0"
