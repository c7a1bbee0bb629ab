"""A tuner as users of HMCT write them: phases of whole builds until every output holds its cosine.

It knows the vendor's names only. What it reads, it reads as such programs do: the log through a
handler, files by their names, the ranking out of another process's log.
"""

import argparse
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from hmct.api import build_model
from hmct.ir import OnnxModel

GOAL = 0.99
PRODUCTS = ("Conv", "Gemm", "MatMul")
OUTPUTS = "The quantized model output:"
SOFTMAX = re.compile(r"_[a-z]+_FROM_QUANTIZED_SOFTMAX$")
BOOLEANS = {"true": True, "false": False}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--onnx_path", required=True)
    parser.add_argument("--cali_data_dir", required=True)
    parser.add_argument("--march", required=True)
    parser.add_argument("--work_dir", default="tuned")
    parser.add_argument("--node_config_path")
    parser.add_argument("--num_sample", type=int, default=1)
    parser.add_argument(
        "--progressive_thresholds", type=float, nargs="+", default=[0.99, 0.999, 0.9999, 0.99999]
    )
    parser.add_argument("--calibration_type", nargs="+")
    parser.add_argument("--per_channel", nargs="+", type=lambda word: BOOLEANS[word.lower()])
    parser.add_argument("--asymmetric", nargs="+", type=lambda word: BOOLEANS[word.lower()])
    parser.add_argument("--bias_correction", type=lambda word: BOOLEANS[word.lower()])
    parser.add_argument("--bias_correction_num_sample", type=int, default=1)
    parser.add_argument("--bias_correction_metric", default="cosine-similarity")
    return parser.parse_args()


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.kept = []

    def emit(self, record):
        self.kept.append(record.getMessage())


def cosines(log: str) -> dict[str, float]:
    """Read the outputs' similarities from behind their heading."""
    found = {}
    for line in log.partition(OUTPUTS)[2].splitlines():
        name, *cells = line.split() or [""]
        if cells and re.fullmatch(r"-?\d+\.\d+|nan", cells[0]):
            found[name] = float(cells[0])
        elif found and not line.strip():
            break
    return found


class Tuner:
    def __init__(self, given: argparse.Namespace):
        self.given = given
        self.folder = Path(given.work_dir)
        self.fixed = {}
        if given.node_config_path:
            content = json.loads(Path(given.node_config_path).read_text())
            self.fixed = content.get("node_config", content)
        names = OnnxModel(given.onnx_path).graph.input_names
        self.data = {
            name: [np.load(f) for f in sorted(Path(given.cali_data_dir, name).glob("*.npy"))]
            for name in names
        }
        self.story = []

    def config(self, kind: str, products: str | None = None, nodes: dict | None = None) -> dict:
        given, activation = self.given, {}
        for key in ("calibration_type", "per_channel", "asymmetric"):
            values = getattr(given, key)
            if values:
                activation[key] = values if len(values) > 1 else values[0]
        model = {"all_node_type": kind, "activation": activation}
        if given.bias_correction:
            model["weight"] = {
                "bias_correction": {
                    "num_sample": given.bias_correction_num_sample,
                    "metric": given.bias_correction_metric,
                }
            }
        ops = {op: {"qtype": products} for op in PRODUCTS} if products else {}
        return {
            "model_config": model,
            "op_config": ops,
            "node_config": {**(nodes or {}), **self.fixed},
        }

    def build(self, phase: str, config: dict) -> tuple[bool, Path]:
        """Build into the phase's folder; say whether every output holds."""
        folder = self.folder / phase
        folder.mkdir(parents=True)
        lines, root = Lines(), logging.getLogger()
        root.addHandler(lines)
        try:
            build_model(
                onnx_file=self.given.onnx_path,
                march=self.given.march,
                cali_data=self.data,
                quant_config=config,
                name_prefix=str(folder / "model"),
                save_model=True,
                verbose=True,
            )
        finally:
            root.removeHandler(lines)
        found = cosines("\n".join(lines.kept))
        if not found:
            raise RuntimeError(f"{phase}: the log says nothing of the outputs")
        holds = all(value >= GOAL for value in found.values())
        self.story.append((phase, holds, found))
        (folder / "quant_config.json").write_text(json.dumps(config, indent=2))
        (calibrated,) = folder.glob("*calibrated_model.onnx")
        return holds, calibrated

    def sensitivities(self, calibrated: Path) -> dict[str, float]:
        """Rank the nodes in a process of its own; return the least score of each."""
        subprocess.run(
            [
                *(sys.executable, str(Path(__file__).with_name("get_sensitivity_of_nodes.py"))),
                *("--calibrated_model_path", str(calibrated)),
                *("--cali_data_dir", self.given.cali_data_dir, "--metric", "cosine-similarity"),
                *("--num_sample", str(self.given.num_sample), "--save_dir", str(calibrated.parent)),
            ],
            check=True,
        )
        found: dict[str, float] = {}
        for line in (calibrated.parent / "node_sensitivity.log").read_text().splitlines():
            words = line.split()
            heading = "---" in line or "===" in line or ("ode" in line and "cosine" in line)
            if len(words) < 2 or heading:
                continue
            name = SOFTMAX.sub("", words[0])
            found[name] = min(float(words[1]), found.get(name, 1.0))
        return found

    def by_thresholds(self, phase, calibrated, entry, kind, products=None) -> dict | None:
        """Raise the nodes at or below each threshold; return the first configuration that holds."""
        scores = self.sensitivities(calibrated)
        for threshold in self.given.progressive_thresholds:
            nodes = {name: entry for name, score in scores.items() if score <= threshold}
            config = self.config(kind, products, nodes)
            holds, _ = self.build(f"{phase}/threshold_{threshold}", config)
            if holds:
                return config
        return None

    def run(self) -> dict | None:
        int8, int16 = self.config("int8"), self.config("int16")
        holds, calibrated = self.build("output_int8", int8)
        if holds:
            return int8
        holds, raised = self.build("output_int16", int16)
        if holds:
            entry = {"qtype": "int16"}
            return self.by_thresholds("output_int8_int16_mixed", calibrated, entry, "int8") or int16
        dual = self.config("int16", "dual-int16")
        holds, doubled = self.build("output_dual_int16", dual)
        if holds:
            entry = {"input0": "int16", "input1": "int16"}
            phase = "output_int16_dual_int16_mixed"
            return self.by_thresholds(phase, raised, entry, "int16", "dual-int16") or dual
        floating = self.config("float16")
        holds, _ = self.build("output_float16", floating)
        if holds:
            phase, entry = "output_dual_int16_float16_mixed", {"qtype": "float16"}
            found = self.by_thresholds(phase, doubled, entry, "int16", "dual-int16")
            return found or floating
        return None

    def report(self, config: dict | None) -> None:
        lines = ["# Tuning", "", "| phase | holds | outputs |", "| --- | --- | --- |"]
        lines += [
            f"| {phase} | {'yes' if holds else 'no'} | "
            + ", ".join(f"{name} {value:.6f}" for name, value in found.items())
            + " |"
            for phase, holds, found in self.story
        ]
        (self.folder / "tuning_report.md").write_text("\n".join(lines) + "\n")
        if config is not None:
            (self.folder / "final_quant_config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    tuner = Tuner(arguments())
    final = tuner.run()
    tuner.report(final)
    sys.exit(0 if final is not None else 3)
