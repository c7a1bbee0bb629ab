"""Builds or checks a model in one call, with everything from files: the vendor's names only."""

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
from hmct.api import build_model
from hmct.ir import load_model


def content(path: str | None) -> dict | None:
    return json.loads(Path(path).read_text()) if path else None


def samples(folder: str) -> dict[str, list[np.ndarray]]:
    return {
        one.name: [np.load(path) for path in sorted(one.glob("*.npy"))]
        for one in sorted(Path(folder).iterdir())
        if one.is_dir()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    actions = parser.add_subparsers(dest="action", required=True)
    build, check = actions.add_parser("build"), actions.add_parser("check")
    for action in (build, check):
        action.add_argument("--onnx_path", required=True)
        action.add_argument("--march", required=True)
        action.add_argument("--input_dict_path")
    build.add_argument("--cali_data_dir", required=True)
    build.add_argument("--name_prefix", required=True)
    build.add_argument("--quant_config_path")
    build.add_argument("--cali_dict_path")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    common = {"onnx_file": given.onnx_path, "march": given.march}
    if given.input_dict_path:
        common["input_dict"] = content(given.input_dict_path)
    if given.action == "check":
        build_model(**common, check_mode=True, save_model=False)
        sys.stdout.write("check: ok\n")
        return
    Path(given.name_prefix).parent.mkdir(parents=True, exist_ok=True)
    built = build_model(
        **common,
        cali_data=samples(given.cali_data_dir),
        quant_config=given.quant_config_path,
        cali_dict=content(given.cali_dict_path),
        name_prefix=given.name_prefix,
        verbose=True,
        save_model=True,
    )
    types = {n.name: n.qtype for n in load_model(built).graph.type2nodes["HzCalibration"]}
    sys.stdout.write(json.dumps(types) + "\n")


if __name__ == "__main__":
    main()
