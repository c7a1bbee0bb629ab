"""Pure arithmetic: element types, scales, fake quantization."""
