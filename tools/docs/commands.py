"""``python -m tools.docs.commands``: write ``docs/commands.md`` from the help of every command."""

from __future__ import annotations

import importlib
from pathlib import Path

from jptq import files
from jptq.cli import flags
from jptq.cli.main import COMMANDS

PAGE = Path("docs/commands.md")

_HEAD = """\
# Commands

*Generated from `jptq COMMAND --help` by `make docs`.*

All commands share one vocabulary of flags. Progress goes to stderr, results to stdout; `--json`,
where a command has it, prints what the result files hold. The codes that a command ends with are
[listed](exit-codes.md).
"""


def page() -> str:
    """Return the page."""
    text = [_HEAD]
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        usage = flags.usage(name, module.__doc__ or "", module.FLAGS, module.REQUIRED)
        text.append(f"## {name}\n\n```text\n{usage.strip()}\n```\n")
    return "\n".join(text)


if __name__ == "__main__":
    files.write_text(PAGE, page())
