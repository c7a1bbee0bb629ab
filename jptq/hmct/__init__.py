"""The vendor's names over our own types: scripts written for HMCT run after one word is replaced.

``hmct.ir``, ``hmct.common``, ``hmct.api``, ``hmct.executor`` and ``hmct.quantizer.debugger`` have
a module of the same name here. ``jptq run script.py`` makes the vendor's own names resolve to
these.
"""

from jptq import __version__

__all__ = ["__version__"]
