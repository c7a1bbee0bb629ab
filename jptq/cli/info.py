"""Show how near a calibrated model is to its float form, node by node and output by output."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jptq import __version__
from jptq.cli import machine, words
from jptq.cli.debugger import add_reference
from jptq.cli.main import entry as run_program
from jptq.cli.main import guarded
from jptq.cli.output import print_text

PROGRAM = "jptq-info"

# Logging's default form, which the vendor's program prints its tables in.
_PREFIX = "INFO:root:"


def entry() -> None:
    """Run the program; what ``jptq-info`` starts."""
    run_program(main)


def main(arguments: Sequence[str]) -> int:
    """Run the program on its arguments and return the exit code."""
    return guarded(PROGRAM, arguments, lambda: _run(arguments))


def parser() -> words.Parser:
    """Return what reads the command line."""
    made = words.Parser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    made.add_argument("model", metavar="MODEL", help="a calibrated model")
    made.add_argument(
        "-c",
        "--calibration_data",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a sample of an input, an .npy file; repeat it in the order of the inputs. "
        "A folder stands for its first sample. Without it the sample is random",
    )
    add_reference(made)
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return made


def _run(arguments: Sequence[str]) -> int:
    try:
        given = parser().parse_args(arguments)
    except SystemExit as ended:  # --help and --version are done
        return int(ended.code or 0)
    machine.settle(None, None)
    from jptq.hmct.quantizer.debugger.info import model_info
    from jptq.hmct.quantizer.debugger.loading import compared_with
    from jptq.report import distance_table
    from jptq.report.vendor_tables import node_table

    data = [str(path) for path in given.calibration_data]
    print_text(f"{_PREFIX}model file: {given.model}, calibration data: {data}")
    if not data:
        logging.getLogger("jptq").warning(
            "the similarities mean nothing: the sample is random, give one with -c"
        )
    sys.stdout.flush()
    with compared_with(given.reference):
        found = model_info(given.model, given.calibration_data)
    print_text(_PREFIX + node_table(found.nodes), _PREFIX + distance_table(found.outputs))
    return 0
