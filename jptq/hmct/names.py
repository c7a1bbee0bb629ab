"""The vendor's import names, made to mean our modules for as long as a script runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = {
    "hmct": "jptq.hmct",
    "horizon_nn": "jptq.hmct",
    "horizon_nn.debug": "jptq.hmct.quantizer.debugger",
}
"""The vendor's package, its name in older releases, and what has moved since."""


class _Alias(Loader):
    """Gives a module that exists under another name."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._own: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has run already; the import system has written the other name's spec over its own.
        module.__spec__ = self._own


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in NAMES:
            return None
        ours = counterpart(fullname)
        if not _exists(ours):
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: jptq stands in for the vendor's package and has "
                f"no {ours}",
                name=fullname,
            )
        return ModuleSpec(fullname, _Alias(ours), is_package=True)


def counterpart(name: str) -> str:
    """Return our module for one of the vendor's.

    >>> counterpart("hmct.quantizer.debugger")
    'jptq.hmct.quantizer.debugger'
    >>> counterpart("horizon_nn.debug")
    'jptq.hmct.quantizer.debugger'
    """
    longest = max((n for n in NAMES if name == n or name.startswith(f"{n}.")), key=len)
    return NAMES[longest] + name[len(longest) :]


def stand_in() -> None:
    """Let the vendor's import names resolve to ours from now on, in a process of their own."""
    sys.meta_path.insert(0, _Finder())
    for name in NAMES:
        if "." not in name:
            # The import that led here gives what it finds under the name when it ends.
            sys.modules[name] = importlib.import_module(counterpart(name))


@contextlib.contextmanager
def vendor_names() -> Iterator[None]:
    """Let the vendor's import names resolve to ours, before any installed package of that name."""
    hidden = {name: module for name, module in sys.modules.items() if _is_vendors(name)}
    for name in hidden:
        del sys.modules[name]
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_vendors(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _is_vendors(name: str) -> bool:
    return name.partition(".")[0] in NAMES


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
