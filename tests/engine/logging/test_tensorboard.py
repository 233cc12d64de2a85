"""TensorBoard output: images, curves for each class, one layout of charts, the end of a run."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from toy_task import ToyTask

from visionloop.engine.logging.tensorboard import (
    MOST_CLASSES,
    TensorBoardWriter,
    score_groups,
    without_front_matter,
)
from visionloop.engine.metric import MetricSpec
from visionloop.engine.train import train

SPECS = {
    key: MetricSpec(key, key.upper(), "float", True, "")
    for key in ("ap", "ap50", "ap_small", "loss", "loss+")
}


class Classy(ToyTask):
    class_curves = ("accuracy",)

    def per_class_scores(self, metric, picks=None):
        return {
            "left": {"accuracy": 0.25, "images": len(metric)},
            "right": {"accuracy": float("nan"), "images": 0},
        }

    def draw_scores(self, metric):
        return {"chart": np.zeros((4, 6, 3), dtype=np.uint8)}


def open_board(folder):
    board = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    board.Reload()
    return board


def layout_of(board):
    """{category: {chart: patterns}} of the newest layout."""
    newest = Layout.FromString(
        board.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    )
    return {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in newest.category
    }


@pytest.fixture(scope="module")
def stopped_and_resumed(tmp_path_factory):
    """Return what TensorBoard reads of a run of eight steps, stopped and resumed once."""
    output = tmp_path_factory.mktemp("run")
    settings = dict(
        data="toy",
        model="toy",
        steps=8,
        batch_size=8,
        threads=1,
        workers=0,
        device="cpu",
        precision="fp32",
        log_every=2,
    )
    settings |= dict(output=str(output), eval_every=4, save_every=4, keep=9)
    train(Classy, **settings)
    (output / "checkpoints/step_00000008/manifest.json").unlink()
    train(Classy, **settings)
    return open_board(output / "tensorboard")


def test_a_resumed_run_shows_each_evaluation_once_and_its_result_at_the_end(stopped_and_resumed):
    board = stopped_and_resumed
    for tag in ("images/predictions", "images/worst", "images/chart"):
        assert [event.step for event in board.Images(tag)] == [4, 8], tag
    assert [event.step for event in board.Images("images/images")] == [
        2
    ]  # the first batch that was trained on
    assert [event.step for event in board.Scalars("per_class_accuracy/left")] == [4, 8]
    assert [event.step for event in board.Scalars("final/accuracy")] == [8]
    assert board.Tensors("time/text_summary")[-1].step == 8


def test_images_are_the_size_they_were_drawn_in(stopped_and_resumed):
    event = stopped_and_resumed.Images("images/chart")[-1]
    assert (event.width, event.height) == (6, 4) and Image.open(
        io.BytesIO(event.encoded_image_string)
    ).size == (6, 4)
    assert (
        stopped_and_resumed.Images("images/predictions")[-1].width == 8 * 8
    )  # the eight fixed samples


def test_runs_can_be_compared_by_their_settings(stopped_and_resumed):
    data = HParamsPluginData.FromString(
        stopped_and_resumed.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    names = set(data.session_start_info.hparams)
    assert {"lr", "batch_size", "steps", "optimizer", "dropout"} <= names and not names & {
        "task",
        "data_fingerprint",
    }


def test_the_layout_has_every_score_once_and_the_classes(stopped_and_resumed):
    layout = layout_of(stopped_and_resumed)
    assert list(layout) == ["training", "evaluation", "classes", "speed"]
    assert layout["evaluation"] == {
        spec.label: [f"eval/{spec.key}$", f"eval_raw/{spec.key}$"] for spec in ToyTask.metrics
    }
    assert layout["classes"] == {"accuracy": ["per_class_accuracy/.*"]}


def test_scores_are_grouped_as_the_task_says_and_each_other_one_has_its_own_chart():
    charts = {"precision": ("ap", "ap50"), "by size": ("ap_.*",), "of other tasks": ("psnr",)}
    groups = [
        (title, [tag for tag in tags if tag.startswith("eval/")])
        for title, tags in score_groups(SPECS, charts)
    ]
    assert groups == [
        ("precision", ["eval/ap$", "eval/ap50$"]),
        ("by size", ["eval/ap_small$"]),
        ("LOSS", ["eval/loss$"]),
        ("LOSS+", [r"eval/loss\+$"]),
    ]


def test_many_classes_have_a_table_and_no_curves(tmp_path):
    writer = TensorBoardWriter(tmp_path, Classy, 0)
    for number in (MOST_CLASSES, MOST_CLASSES + 1):
        writer.classes(
            number,
            Classy.metrics[0],
            {f"c{i}": {"accuracy": 0.5, "images": 2} for i in range(number)},
        )
    writer.close()
    board = open_board(tmp_path)
    assert [event.step for event in board.Scalars("per_class_accuracy/c0")] == [MOST_CLASSES]
    assert len(board.Tensors("classes/text_summary")) == 2


def test_a_model_card_is_shown_without_its_yaml():
    card = "---\nlibrary_name: transformers\n---\n# Title\n\n---\ntext\n"
    assert (
        without_front_matter(card) == "# Title\n\n---\ntext\n"
        and without_front_matter("# Title") == "# Title"
    )
