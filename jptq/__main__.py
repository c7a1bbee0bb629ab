"""``python -m jptq``."""

from jptq.cli.main import entry

if __name__ == "__main__":
    entry()
