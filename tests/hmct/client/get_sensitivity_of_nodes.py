"""The tuner's second program: ranks the nodes of a calibrated model and saves the log."""

import argparse
import logging

from hmct.quantizer.debugger import get_sensitivity_of_nodes, select_sensitive_samples


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calibrated_model_path", required=True)
    parser.add_argument("--cali_data_dir", required=True)
    parser.add_argument("--metric", default="cosine-similarity")
    parser.add_argument("--num_sample", type=int, default=1)
    parser.add_argument("--save_dir", required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    worst = select_sensitive_samples(
        calibrated_model=given.calibrated_model_path,
        calibration_data=given.cali_data_dir,
        metric=given.metric,
        num_sample=given.num_sample,
    )
    get_sensitivity_of_nodes(
        given.calibrated_model_path,
        calibrated_data=worst,
        metrics=given.metric,
        output_node=None,
        data_num=None,
        verbose=True,
        save_dir=given.save_dir,
    )


if __name__ == "__main__":
    main()
