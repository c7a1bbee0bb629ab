"""What ships to the vendor's tool and what that tool will make of it, for ``report.md``."""

from __future__ import annotations

import json

from jptq.report.markup import code, plain, table
from jptq.results import PREPARED_FILE, Report

_MOVED = 20
"""Thresholds that are listed."""


def use(report: Report) -> list[str]:
    """Return the paragraphs on how the files are handed on."""
    again = report.recalibration
    changed = again is not None and again.changed > 0
    file = PREPARED_FILE if changed else f"{report.model}.onnx"
    told = (
        f"`{PREPARED_FILE}` beside it is the network to build: the one that was given with "
        f"{again.changed} of its constants changed, so that weights and biases here are those "
        "of a plain calibration. The network that was given would be calibrated without what was "
        "changed. "
        if again is not None and changed
        else ""
    )
    return [
        "## Use it",
        "`quant_config.json` beside this file is in the vendor's schema; its names are those of "
        f"the optimized float graph. {told}Build with the calibration data used here:",
        "```python\n"
        "import onnx\n"
        "from hmct.api import build_model\n\n"
        "build_model(\n"
        f"    onnx_model=onnx.load({json.dumps(file)}),\n"
        f"    march={json.dumps(report.march)},\n"
        "    cali_data=calibration_data,\n"
        '    quant_config="quant_config.json",\n'
        ")\n"
        "```",
        "or name it in the compiler's YAML file:",
        "```yaml\n"
        + (f"model_parameters:\n  onnx_model: {file}\n" if changed else "")
        + "calibration_parameters:\n  quant_config: quant_config.json\n```",
        "Then evaluate the vendor's calibrated model: its score is the one that counts"
        + (
            ", and it should match the measured one above within sampling noise."
            if again is None or not again.stopped
            else f". It may be lower than the measured one above: {len(again.stopped)} of the "
            "thresholds stop here where that build goes on (below); `--reach=false` searches "
            "without that."
        )
        + (
            " `jptq evaluate --model=THEIRS --reference=optimized_float_model.onnx` compares it "
            "with the network that was given."
            if changed
            else ""
        ),
    ]


def section(report: Report) -> list[str]:
    """Return the paragraphs on the prepared network, calibrated again."""
    again = report.recalibration
    if again is None:
        return []
    blocks = ["## Calibrated again", plain(again.sentence)]
    if again.wrong:
        rows = [(code(name), plain(what)) for name, what in again.wrong.items()]
        blocks.append(table(("constant", "what differs"), rows, ("left", "left")))
    for what, features in (
        ("threshold of a feature", again.moved),
        ("threshold that stops", again.stopped),
    ):
        rows = [(code(one.name), f"{100 * one.change:.3g} %") for one in features[:_MOVED]]
        if rest := len(features) - len(rows):
            rows.append((f"and {rest} more in `result.json`", ""))
        if rows:
            blocks.append(table((what, "differs by"), rows, ("left", "right")))
    return blocks
