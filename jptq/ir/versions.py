"""Versions of the file format and of the operators, and what readers of a file know of them."""

from __future__ import annotations

from typing import Final

OLDEST_IR: Final = 4
"""From this version of the file format on, an initializer need not be a graph input as well."""

VENDOR_IR: Final = 9
VENDOR_OPSET: Final = 20
"""The latest that the vendor's tool reads: HMCT 2.8 pins onnx 1.15."""

_IR_OF_OPSET: Final = {9: 4, 10: 5, 11: 6, 12: 7, 15: 8, 19: 9} | {
    21: 10,
    23: 11,
    24: 12,
    25: 13,
    28: 14,
}
"""``{opset: file format of the release that brought it}``. Source: ONNX, Versioning.md."""


def ir_version(opset: int, *, given: int = 0) -> int:
    """Return the version of the file format to write.

    Readers refuse a newer version than they know, whatever is in the file; and exporters write
    newer ones than their models need.

    Args:
      opset: Of ONNX's own operators; it brings the types that need a format.
      given: Version of the file that the model came from. It is kept up to `VENDOR_IR`.
    """
    needed = max(version for since, version in _IR_OF_OPSET.items() if since <= max(opset, 9))
    return max(OLDEST_IR, needed, min(given, VENDOR_IR))
