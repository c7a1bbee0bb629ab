"""Files that are either whole or absent, and digests of their content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jptq.errors import StorageError

_under_way: set[Path] = set()
"""Temporary files of `atomic_path`."""


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it on success.

    A failure of any kind (full disk, exception, signal) leaves ``path`` as it was.

    Args:
      path: What is written.
      durable: Wait until the disk has it, so that it outlives a loss of power too.

    Raises:
      StorageError: The operating system refused to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise _refused(path, error) from error
    temporary = Path(name)
    _under_way.add(temporary)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        # mkstemp makes private files; results are as readable as any other file of the user.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        _under_way.discard(temporary)


def discard() -> None:
    """Remove the files that are being written: for a process that ends at once."""
    for temporary in tuple(_under_way):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file atomically, see `atomic_path`."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, in a stable form: two results are equal if their bytes are."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """Return what `write_json` writes.

    Raises:
      ValueError: A number is not finite: JSON has no such numbers.
    """
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
      OSError: It cannot be read, or has no end because it is a device.
    """
    _refuse_device(path)
    return path.read_bytes()


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file.

    Raises:
      OSError: It cannot be read, or has no end because it is a device.
      UnicodeDecodeError: It is in another encoding.
    """
    _refuse_device(path)
    return path.read_text(encoding=encoding)


def _refuse_device(path: Path) -> None:
    if path.is_char_device():
        raise OSError(errno.EINVAL, "it is a device, not a file")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      StorageError: The file is absent or not JSON, or a key stands twice in one of its tables.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_table)
    except OSError as error:
        raise StorageError(f"cannot read {path}", why=error.strerror or str(error)) from error
    except _TwiceError as error:
        raise StorageError(f"{path}: a key stands twice in one table", why=str(error)) from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not JSON", why=str(error)) from error


class _TwiceError(ValueError):
    """A key has two values."""


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table; Python would keep the last of two entries without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def digest(*parts: bytes | str | Path) -> str:
    """Return a SHA-256 hex digest over strings, bytes and the content of paths."""
    whole = hashlib.sha256()
    for part in parts:
        one = hashlib.sha256()
        if isinstance(part, Path):
            with part.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    one.update(chunk)
        else:
            one.update(part.encode() if isinstance(part, str) else part)
        whole.update(one.digest())
    return whole.hexdigest()


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}",
        why=error.strerror or str(error),
        hint="free space or choose another --out",
    )
