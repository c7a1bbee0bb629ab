"""Every flag of every command: one word means the same everywhere (design 3)."""

from __future__ import annotations

import dataclasses
from typing import Literal

Kind = Literal["text", "words", "repeated", "number", "count", "switch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag.

    Attributes:
      help: One or two lines; what it does, not what it is called.
      kind: ``words`` are separated by commas, a ``repeated`` flag may be given several times.
      shown: What stands for the value in the help; empty for a switch.
      default: Used if the flag is not given.
      least: Lower bound of a number.
      most: Upper bound of a count.
      choices: The only values of a text flag.
    """

    help: str
    kind: Kind = "text"
    shown: str = ""
    default: str | float | bool | None = None
    least: int | None = None
    most: int = 2**31 - 1
    choices: tuple[str, ...] = ()


VOCABULARY: dict[str, Flag] = {
    # --- what goes in
    "model": Flag(help="The network, an ONNX file.", shown="FILE"),
    "calibration_data": Flag(
        help="Folder of samples: <input>/*.npy, or b<batch>_<input>.npy, or the files directly if "
        "there is one input, or an .npz per sample; or a folder per input, in their order or by "
        "name: A;B, y=B;x=A.",
        shown="FOLDER",
    ),
    "input_shape": Flag(
        help="Shape of an input that the file leaves open, as NAME:1x3x224x224; may be repeated.",
        kind="repeated",
        shown="NAME:SHAPE",
    ),
    "input_value": Flag(
        help="Make an input a constant, so that what hangs on it folds: NAME:16000, NAME:1,2,3 or "
        "NAME:array.npy. It then needs no samples; may be repeated.",
        kind="repeated",
        shown="NAME:VALUE",
    ),
    "march": Flag(
        help="Target: nash-e, nash-m or nash-p.",
        shown="NAME",
        default="nash-e",
    ),
    "change": Flag(
        help="NODE, NODE.input1, NODE.output or a quantizer, and its new type; or .threshold "
        "behind it and 4.2, 1,2,... per channel, MIN,MAX if asymmetric, or x0.9. That of a node "
        "is its input0's, as in the table of jptq-info. The same as without --change=.",
        kind="repeated",
        shown="NODE=TYPE",
    ),
    "quant_config": Flag(
        help="Calibration settings and types, in the vendor's form: JSON, with or without "
        "comments, a Python dict, or the YAML of the compile tool, which also names network, "
        "samples and target where no flag does. jptq tune and jptq allocate keep the types that "
        "it names for nodes and choose all others.",
        shown="FILE",
    ),
    "action": Flag(
        help="explain, check, or diff A B. The same as without --action=.",
        kind="repeated",
        shown="ACTION",
    ),
    "against": Flag(
        help="Optimized float graph of the tool that is to read the configuration.", shown="FILE"
    ),
    "unmatched": Flag(
        help="Keys and nodes of a configuration that do not exist are an error, or a warning.",
        shown="NAME",
        default="error",
        choices=("error", "warn"),
    ),
    "only": Flag(
        help="Show only operands that do not get what is asked for.",
        shown="NAME",
        choices=("differences",),
    ),
    "evaluator": Flag(
        help="Your score: `evaluate(forward) -> float or {name: float}`, higher is better.",
        shown="FILE.py[:FUNCTION]",
    ),
    "loss": Flag(
        help="Your loss in jax.numpy, `loss(outputs, feeds) -> scalar` of one sample, for "
        "--method=gradient or hessian.",
        shown="FILE.py[:FUNCTION]",
    ),
    "latency_table": Flag(
        help="Your own times per node, CSV (node,int8_us,int16_us[,dual_int16_us]) or JSON.",
        shown="FILE",
    ),
    "sensitivity": Flag(
        help="Errors of all quantizers: sensitivity.json of `jptq sensitivity --kind=group`.",
        shown="FILE",
    ),
    # --- the goal
    "min_score": Flag(
        help="Share of the float model's score that every score must keep; 0.99 if neither this "
        "nor a budget is given.",
        kind="number",
        shown="SHARE",
        least=0,
    ),
    "min_cosine": Flag(
        help="Mean cosine similarity that every output must keep if there is no evaluator; 0.99 "
        "if neither this nor a budget is given.",
        kind="number",
        shown="COSINE",
        least=-1,
    ),
    "latency_budget_us": Flag(
        help="Largest modelled latency in microseconds.", kind="number", shown="US", least=0
    ),
    "latency_budget_ratio": Flag(
        help="Largest modelled latency as a multiple of all-INT8.",
        kind="number",
        shown="RATIO",
        least=0,
    ),
    # --- how
    "search": Flag(
        help="How configurations are proposed: milp; walk, which raises the worst node, then the "
        "next; or head, the subgraph in front of the failing output.",
        shown="NAME",
        default="milp",
    ),
    "fit": Flag(
        help="Fit to the samples, before anything is measured, so that INT8 weights lose less: "
        "weights, which are rounded anew on their grid, with their biases; bias, alone; auto, "
        "both; or off. Only what helps on held-out samples is kept.",
        shown="NAME",
        default="auto",
        choices=("auto", "off", "bias", "weights"),
    ),
    "leftovers": Flag(
        help="What to do with the operands that all-INT16 leaves INT8 (weights, what Resize "
        "reads), if it misses the goal because of them: dual-int16; ec, a second operator; auto, "
        "which takes ec where dual-int16 is not enough; or int8, nothing.",
        shown="NAME",
        default="auto",
    ),
    "method": Flag(
        help="How sensitivity is found: metric (exact), probe, gradient or hessian.",
        kind="words",
        shown="NAME",
        default="metric",
    ),
    "metric": Flag(
        help="Scores, the first decides the order: cosine-similarity, mse, mre, sqnr, chebyshev; "
        "mse, cosine-similarity of probe; taylor, fisher of gradient.",
        kind="words",
        shown="NAME,...",
    ),
    "kind": Flag(
        help="What is ranked: node, weight, activation, or group (what changes its type together, "
        "as INT8 and as INT16: the input of jptq allocate).",
        shown="KIND",
        default="node",
        choices=("node", "weight", "activation", "group"),
    ),
    "output_node": Flag(
        help="Compare at the output of this node instead of the network's; may be repeated.",
        kind="repeated",
        shown="NODE",
    ),
    "thresholds": Flag(
        help="Scores at or beyond which nodes are raised, in the order in which they are tried; "
        "by default those that raise the worst 1, 2, 4, ... nodes.",
        kind="words",
        shown="T,...",
    ),
    "every_row": Flag(
        help="Go on behind the first row that meets the goal.", kind="switch", default=False
    ),
    "spread": Flag(
        help="Show the least cosine of any sample (Min) beside each output's mean (Avg).",
        kind="switch",
        default=False,
    ),
    "subgraph": Flag(
        help="If the ranking fails, look for the subgraph in front of the failing output that has "
        "to be INT16, with at most 10 runs.",
        kind="switch",
        default=False,
    ),
    "reference": Flag(
        help="The float network that a calibrated model with fitted weights is compared with. By "
        "default optimized_float_model.onnx beside the model, where the model was made of it.",
        shown="FILE",
    ),
    "int16_model": Flag(
        help="The calibrated model whose INT16 reached the goal, if it was calibrated apart: its "
        "thresholds are compared.",
        shown="FILE",
    ),
    "sweep": Flag(
        help="fast reuses what a perturbation cannot reach; naive runs the whole network for each "
        "row.",
        shown="NAME",
        default="fast",
        choices=("fast", "naive"),
    ),
    "compare": Flag(
        help="Also rank exactly, and show how far the methods agree with that and what they cost.",
        kind="switch",
        default=False,
    ),
    "strict_integers": Flag(
        help="Whatever is run quantized keeps biases and sums of products within the target's "
        "integers, as the chip does, instead of adding exactly.",
        kind="switch",
        default=False,
    ),
    "reach": Flag(
        help="Thresholds stop where no reader of a tensor tells larger values apart, as with a "
        "mask before a softmax. The tool of the vendor does not do that.",
        kind="switch",
        default=True,
    ),
    "samples": Flag(
        help="Samples for sensitivity, evenly taken from the folder.",
        kind="count",
        shown="N",
        default=8,
        least=1,
    ),
    "batch_size": Flag(
        help="Most samples of a program run; 8 by default.", kind="count", shown="N", least=1
    ),
    "memory_limit": Flag(
        help="Memory that the process should stay below: batches become smaller, never the set of "
        "samples. 1400 by default. Where not even one sample fits, that is said.",
        kind="count",
        shown="MIB",
        least=1,
    ),
    "seed": Flag(help="Of everything random.", kind="count", shown="N", default=0, least=0),
    "top": Flag(
        help="Rows of the table to print; 0 for all.", kind="count", shown="N", default=20, least=0
    ),
    # --- the machine
    "device": Flag(
        help="Where to compute; the best one there is by default.",
        shown="NAME",
        choices=("cpu", "gpu", "tpu"),
    ),
    "threads": Flag(
        help="CPU threads of the numeric work; all by default.",
        kind="count",
        shown="N",
        least=1,
        most=1024,
    ),
    "time_limit": Flag(
        help="Comparing calibration methods, ranking and search end after so many seconds; the "
        "best result so far is written. The least that a result needs (one calibration, all-INT8, "
        "all-INT16), and a compilation or a fit that has begun, are finished.",
        kind="number",
        shown="SECONDS",
        least=0,
    ),
    "resume": Flag(
        help="Reuse what an earlier run of the same inputs found in the output folder.",
        kind="switch",
        default=True,
    ),
    # --- what comes out
    "check": Flag(
        help="Run qdq_model.onnx in onnxruntime, if that is installed, and say how far it agrees.",
        kind="switch",
        default=False,
    ),
    "out": Flag(help="Folder for the result files.", shown="FOLDER"),
    "json": Flag(help="Print JSON instead of tables.", kind="switch", default=False),
}
"""Every flag of every command. Defaults that depend on the command stand in its own help."""

OLDER = {"calibrated_model": "model"}
"""Spellings of earlier versions, which commands still take."""
