"""The benchmark of the engine against a bare loop, on a small run."""

import json

from click.testing import CliRunner
from segmentation_files import write_segmentation_data

from visionloop.bin.benchmarks.overhead import overhead


def test_a_bare_loop_of_segmentation_ends_with_equal_weights(tmp_path):
    data = str(write_segmentation_data(tmp_path / "data", pictures=6))
    small = ["--data", data, "--image-size", "32", "--batch-size", "4", "--micro-batch", "2", "--precision", "fp32", "--steps", "8"]
    result = CliRunner().invoke(overhead, ["--task", "segmentation", *small, "--block", "2", "--json", str(tmp_path / "overhead.json")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "overhead.json").read_text())
    assert figures["task"] == "segmentation" and figures["weights"] == "equal"
    assert figures["bare_step_ms"] > 0 and figures["engine_step_ms"] > 0
