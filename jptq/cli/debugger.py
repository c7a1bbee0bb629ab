"""Find out where a calibrated model loses accuracy: the vendor's debugger, option by option.

MODEL is a calibrated model, DATA the folder of its samples: a sub-folder per input, or the files
themselves if there is one input. Lists may lose their quotes to the shell: [a,b], ['a','b'] and a
are understood, and [[a,b],c] where nodes belong together. Booleans are words: -v True.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jptq import __version__
from jptq.cli import machine, words
from jptq.cli.main import entry as run_program
from jptq.cli.main import guarded
from jptq.cli.output import print_text
from jptq.registry import lookup

if TYPE_CHECKING:
    from jptq.hmct.quantizer.debugger.samples import SensitiveSamples

PROGRAM = "jptq-debugger"
RESULTS = "./debug_result/"
COSINE = "cosine-similarity"

# --- sub-commands -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a sub-command.

    Attributes:
      flags: Short and long spelling; the long one is the function's argument.
      help: What it does.
      read: Turns its text into the value.
      default: Used if it is not given.
      prompt: It is needed; a person is asked for it so.
    """

    flags: tuple[str, str]
    help: str
    read: Callable[[str], Any] = str
    default: Any = None
    prompt: str = ""

    @property
    def name(self) -> str:
        """The function's argument."""
        return self.flags[1].removeprefix("--")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command: a function of `jptq.hmct.quantizer.debugger` with options.

    Attributes:
      help: One line.
      function: Its name.
      options: Of the function.
      model: The function's argument for MODEL.
      data: Its argument for DATA.
    """

    help: str
    function: str
    options: tuple[Option, ...]
    model: str = "model_or_file"
    data: str = "calibrated_data"


def _save(flags: tuple[str, str] = ("-s", "--save_dir"), default: str | None = RESULTS) -> Option:
    return Option(flags=flags, default=default, help="folder for the results")


def _metric(*flags: str) -> Option:
    short, long = flags
    return Option(
        flags=(short, long),
        default=COSINE,
        help="cosine-similarity, mre, mse, sqnr or chebyshev",
    )


def _nodes(short: str, long: str, help_text: str, prompt: str = "") -> Option:
    return Option(flags=(short, long), help=help_text, read=words.listed, prompt=prompt)


def _data_num(short: str) -> Option:
    return Option(
        flags=(short, "--data_num"),
        read=words.or_none(int),
        default=1,
        help="first samples to use; None takes all",
    )


def _ranking(metrics: str, node_type: Option, data_num: str) -> tuple[Option, ...]:
    return (
        Option(
            flags=("-m" if metrics == "--metrics" else "-nm", metrics),
            read=words.names,
            default=COSINE,
            help="one or several of cosine-similarity, mre, mse, sqnr, chebyshev; "
            "the first decides the order",
        ),
        Option(
            flags=("-o", "--output_node"),
            help="compare at this node's outputs; leave out what cannot reach them",
        ),
        node_type,
        _data_num(data_num),
        Option(
            flags=("-v", "--verbose"),
            read=words.boolean,
            default=False,
            help="True prints it",
        ),
        _nodes("-i", "--interested_nodes", "score only these; those of an inner list together"),
    )


_AXIS = Option(
    flags=("-a", "--axis"), read=int, help="channel axis; 1 of activations, a weight's own"
)
_PICK = "take away the nodes up to this cosine, one after the other"

COMMANDS = {
    "get-sensitivity-of-nodes": Command(
        help="rank nodes, weights or activations by what they alone cost",
        function="get_sensitivity_of_nodes",
        options=(
            *_ranking(
                "--metrics",
                Option(
                    flags=("-n", "--node_type"),
                    default="node",
                    help="what to rank: node, weight or activation",
                ),
                "-d",
            ),
            _save(default=None),
        ),
    ),
    "plot-acc-error": Command(
        help="draw how the error accumulates along the graph",
        function="plot_acc_error",
        options=(
            _save(),
            _nodes("-q", "--quantize_node", "quantize only these; weight, activation: all of them"),
            _nodes("-nq", "--non_quantize_node", "quantize all but these"),
            _metric("-m", "--metric"),
            Option(
                flags=("-a", "--average_mode"),
                read=words.boolean,
                default=False,
                help="True draws running means",
            ),
        ),
    ),
    "plot-distribution": Command(
        help="draw the values of nodes, weights or activations with their thresholds",
        function="plot_distribution",
        options=(_save(), _nodes("-n", "--nodes_list", "what to draw", "Specify nodes")),
    ),
    "get-channelwise-data-distribution": Command(
        help="draw the range of every channel",
        function="get_channelwise_data_distribution",
        options=(_save(), _nodes("-n", "--nodes_list", "what to draw", "Specify nodes"), _AXIS),
    ),
    "sensitivity-analysis": Command(
        help="draw what taking the quantizers of sensitive nodes away would gain",
        function="sensitivity_analysis",
        options=(
            _metric("-m", "--metric"),
            Option(flags=("-p", "--pick_threshold"), read=float, default=0.999, help=_PICK),
            _data_num("-d"),
            _nodes("-sn", "--sensitive_nodes", "take these away instead"),
            Option(flags=("-q", "--qtype"), default="float32", help="type that they get"),
            _save(("-sd", "--save_dir")),
        ),
    ),
    "tensor-analysis": Command(
        help="describe tensors: ranges, distribution, error",
        function="tensor_analysis",
        options=(
            _nodes("-n", "--node_names", "whose tensors", "Specify nodes"),
            _save(),
            Option(
                flags=("-np", "--num_processes"), read=int, default=16, help="how many at a time"
            ),
        ),
    ),
    "select-sensitive-samples": Command(
        help="find the samples that suffer most, and save them as calibration data",
        function="select_sensitive_samples",
        options=(
            _metric("-m", "--metric"),
            Option(flags=("-n", "--num_sample"), read=int, default=1, help="how many"),
            _save(default=None),
        ),
        model="calibrated_model",
        data="calibration_data",
    ),
    "runall": Command(
        help="all of it, in one folder",
        function="runall",
        options=(
            _save(),
            *_ranking(
                "--ns_metrics",
                Option(
                    flags=("-nt", "--node_type"),
                    help="what to rank: node, weight or activation; the last two if not given",
                ),
                "-dn",
            ),
            _nodes("-dnl", "--dis_nodes_list", "distributions to draw; the worst if not given"),
            _nodes("-cn", "--cw_nodes_list", "channels to draw; the worst if not given"),
            _AXIS,
            _nodes("-qn", "--quantize_node", "quantize only these for the accumulated error"),
            _nodes("-nqn", "--non_quantize_node", "quantize all but these"),
            _metric("-am", "--ae_metric"),
            Option(
                flags=("-avm", "--average_mode"),
                read=words.boolean,
                default=False,
                help="True draws running means",
            ),
            Option(flags=("-pt", "--pick_threshold"), read=float, default=0.999, help=_PICK),
            _nodes("-sn", "--sensitive_nodes", "take these away instead"),
        ),
    ),
}


# --- the program --------------------------------------------------------------------------------


def entry() -> None:
    """Run the program; what ``jptq-debugger`` starts."""
    run_program(main)


def main(arguments: Sequence[str]) -> int:
    """Run the program on its arguments and return the exit code."""
    return guarded(PROGRAM, arguments, lambda: _run(arguments))


def parser() -> words.Parser:
    """Return what reads the command line."""
    made = words.Parser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    sub = made.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    for name, command in COMMANDS.items():
        one = sub.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        one.add_argument(command.model, metavar="MODEL", help="a calibrated model")
        one.add_argument(command.data, metavar="DATA", help="folder of its samples")
        for option in command.options:
            shown = "" if option.default is None else f" (default {option.default})"
            one.add_argument(
                *option.flags,
                dest=option.name,
                type=words.or_none(option.read) if option.default is None else option.read,
                default=option.default,
                metavar=option.name.upper(),
                help=option.help + shown,
            )
        add_reference(one)
    return made


def add_reference(to: argparse.ArgumentParser) -> None:
    """Add the one option that the vendor's programs do not have."""
    to.add_argument(
        "--reference",
        metavar="FILE",
        help="the float network of a model whose weights jptq has fitted; by default "
        "optimized_float_model.onnx beside it",
    )


def _run(arguments: Sequence[str]) -> int:
    reader = parser()
    if not arguments:
        reader.print_help()
        return 0
    if not arguments[0].startswith("-"):
        lookup(COMMANDS, arguments[0], "sub-command")
    try:
        given = vars(reader.parse_args(words.joined(arguments)))
        command, reference = COMMANDS[given.pop("command")], given.pop("reference")
        for option in command.options:
            if option.prompt and not given[option.name]:
                given[option.name] = _ask(reader, option)
    except SystemExit as ended:  # --help and --version are done
        return int(ended.code or 0)
    machine.settle(None, None)
    from jptq.cli import progress
    from jptq.hmct.quantizer import debugger
    from jptq.hmct.quantizer.debugger.arguments import writable
    from jptq.hmct.quantizer.debugger.loading import compared_with

    function = getattr(debugger, command.function)
    if given["save_dir"] is not None:
        writable(given["save_dir"])
    with compared_with(reference), _tables_on_stdout(), progress.bars() as shown:
        if command.function in ("get_sensitivity_of_nodes", "runall"):
            given["progress"] = shown
        save_dir = given["save_dir"]
        if command.function == "select_sensitive_samples":
            _show_samples(function(**{k: v for k, v in given.items() if k != "save_dir"}), save_dir)
        else:
            function(**given)
    if save_dir is not None:
        print_text(f"Results: {save_dir}")
    return 0


def _ask(reader: words.Parser, option: Option) -> Any:
    if not sys.stdin.isatty():
        reader.error(f"the option {'/'.join(option.flags)} is needed")
    try:
        return option.read(input(f"{option.prompt}: "))
    except (argparse.ArgumentTypeError, EOFError) as error:
        return reader.error(f"argument {'/'.join(option.flags)}: {error}")


@contextlib.contextmanager
def _tables_on_stdout() -> Iterator[None]:
    """Print what the vendor's functions log: the root logger's messages, as they are."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: record.name == "root" and record.levelno == logging.INFO)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _show_samples(found: SensitiveSamples, save_dir: str | None) -> None:
    from jptq.report import info_table

    keys = [str(index) for index in found.indices]
    print_text(
        info_table(
            "sample",
            keys,
            {found.metric: [str(round(score, 5)) for score in found.scores]},
            title="sensitive samples",
        )
    )
    if save_dir is None:
        return
    import numpy as np

    from jptq import files
    from jptq.data.layout import folder_name

    for position in range(len(found)):
        for name, array in found[position].items():
            path = Path(save_dir) / folder_name(name) / f"{position:03}.npy"
            with files.atomic_path(path) as temporary:
                np.save(temporary, array)
