"""What long work has found so far: a killed run goes on, a second run reuses.

One small file per finding, written atomically, named by a digest of everything it depends on, with
a checksum of its content. Any of them can be deleted at any time.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jptq import files
from jptq.errors import StorageError

_log = logging.getLogger(__name__)

_DIGITS = 64
"""Of a checksum, at the end of a file of arrays."""

_DURABLE = False
"""A record that a loss of power tears fails its checksum and is found anew: no need to wait for
the disk after each of them."""

_CHANGED = "its content is not what was written, its checksum says"


class Journal:
    """A folder of findings.

    Args:
      folder: Where; None keeps nothing.
      reuse: Whether to read what is there (``--resume``).
    """

    def __init__(self, folder: Path | None, *, reuse: bool = True) -> None:
        self.folder = folder
        self.reuse = reuse
        self.reused = 0

    def load(self, kind: str, *key: str) -> Any | None:
        """Return a finding, or None if there is none that can be read."""
        path = self._path(kind, key, "json")
        if path is None or not self.reuse or not path.is_file():
            return None
        try:
            record = files.read_json(path)
        except StorageError as error:
            _log.warning("%s is ignored: %s", path, error.why)
            return None
        content = record.get("content") if isinstance(record, dict) else None
        if not isinstance(record, dict) or record.get("sha256") != _of_json(content):
            _log.warning("%s is ignored: %s", path, _CHANGED)
            return None
        self.reused += 1
        return content

    def save(self, kind: str, *key: str, content: Any) -> None:
        """Keep a finding."""
        path = self._path(kind, key, "json")
        if path is not None:
            record = files.json_text({"sha256": _of_json(content), "content": content})
            files.write_bytes(path, record.encode(), durable=_DURABLE)

    def load_arrays(self, kind: str, *key: str) -> dict[str, np.ndarray] | None:
        """Return arrays by name, or None if there are none that can be read."""
        path = self._path(kind, key, "npz")
        if path is None or not self.reuse or not path.is_file():
            return None
        try:
            written = path.read_bytes()
        except OSError as error:
            _log.warning("%s is ignored: %s", path, error)
            return None
        whole, checksum = written[:-_DIGITS], written[-_DIGITS:]
        if checksum != files.digest(whole).encode():
            _log.warning("%s is ignored: %s", path, _CHANGED)
            return None
        with np.load(io.BytesIO(whole), allow_pickle=False) as stored:
            content = {name: stored[name] for name in stored.files}
        self.reused += 1
        return content

    def save_arrays(self, kind: str, *key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays."""
        path = self._path(kind, key, "npz")
        if path is not None:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)  # type: ignore[arg-type]
            whole = buffer.getvalue()
            files.write_bytes(path, whole + files.digest(whole).encode(), durable=_DURABLE)

    def _path(self, kind: str, key: tuple[str, ...], suffix: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{kind}-{files.digest(*key)[:24]}.{suffix}"


def _of_json(content: Any) -> str:
    return files.digest(files.json_text(content))
