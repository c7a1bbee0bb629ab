"""``python -m tools.docs.picture OUT.svg``: run the demo in a terminal, draw how it ends."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jptq import files

COLUMNS, ROWS = 100, 36


def recorded(command: list[str]) -> str:
    """Return what a command writes to a terminal of `COLUMNS`; its stderr is passed on."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(command, stdout=theirs, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux ends a terminal that nobody holds with EIO
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    if process.wait():
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return b"".join(parts).decode().replace("\r\n", "\n")


def drawn(text: str, title: str) -> str:
    """Return the last rows as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in text.rstrip().split("\n")[-ROWS:]:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    svg = console.export_svg(title=title, unique_id="demo")
    # Any fixed-width font will do: a picture should fetch nothing from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    """Record and draw."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).parent / "jptq")
        text = recorded([program, "demo", f"--out={folder}/tuned"]).replace(f"{folder}/", "")
    files.write_text(Path(sys.argv[1]), drawn(text, "make demo"))


if __name__ == "__main__":
    main()
