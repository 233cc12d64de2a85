"""Predictor in a notebook: scores, predictions and images as values, in a kernel that survives."""

import ast
import asyncio
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_runs import write_mixed, write_model
from torchrun_runs import write_classification

from visionloop.bin.benchmarks.tasks import load_task_class
from visionloop.engine.errors import UserError
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.predictor import Predictor

PAGE = (Path(__file__).parents[2] / "bin" / "README.md").read_text()


def execute_cell(code):
    """Run a cell as a kernel does; return ({name: value}, value of the last line if it has one)."""
    names, parsed = {}, ast.parse(code)
    last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
    exec(compile(parsed, "cell", "exec"), names)
    return names, eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_cell_of_the_page_runs_inside_a_kernels_loop_and_shows_a_prediction(
    tmp_path, monkeypatch, capsys
):
    write_classification(tmp_path / "images")
    (code,) = re.findall(r"## In a notebook\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    waiting = threading.Event()
    for _ in range(3):  # as those of a kernel
        threading.Thread(target=waiting.wait, daemon=True).start()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def cell():
        return execute_cell(code)

    names, displayed = asyncio.run(cell())
    waiting.set()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert names["predictor"].evaluate("images")["accuracy"] == names["result"].best["score"]
    predictions = names["predictions"]
    assert [prediction["file"] for prediction in predictions][::4] == [
        "dark/0.png",
        "light/0.png",
    ] and len(predictions) == 8
    assert isinstance(displayed, Image.Image) and np.array_equal(
        np.asarray(displayed), predictions[0]["image"]
    )
    assert (
        f"dark/0.png {predictions[0]['label']} {predictions[0]['score']}" in capsys.readouterr().out
    )


def test_a_second_run_in_the_same_process_and_one_in_a_thread_train_the_same(tmp_path):
    write_classification(tmp_path / "images")
    options = {
        "data": str(tmp_path / "images"),
        "model": "tiny",
        "from_scratch": True,
        "image_size": 32,
        "steps": 4,
        "batch_size": 6,
    }
    options |= {"threads": 1, "device": "cpu", "precision": "fp32", "eval_every": 2}
    scores = {}

    def run(name, workers):
        scores[name] = train(
            ClassificationTask, output=str(tmp_path / name), workers=workers, **options
        ).scores

    run("first", 0)
    run("second", 1)
    thread = threading.Thread(target=run, args=("third", 0))
    thread.start()
    thread.join()
    assert (
        scores["first"]["val_loss"] == scores["second"]["val_loss"] == scores["third"]["val_loss"]
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_mixed(tmp_path_factory.mktemp("images") / "in")


@pytest.mark.parametrize(
    ("task_name", "kinds"),
    [
        ("classification", {"image"}),
        ("detection", {"image"}),
        ("segmentation", {"image", "ids", "colors"}),
        ("super_resolution", {"image", "results"}),
    ],
)
def test_predictions_have_their_images_beside_them(task_name, kinds, images, tmp_path):
    model = Predictor(load_task_class(task_name), write_model(task_name, tmp_path), device="cpu")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    path = images / "1.jpg"
    wide = np.asarray(Image.open(images / "deep" / "0.png"))
    inputs = [path, wide, tmp_path / "broken.png", Image.open(path), str(path)]
    predictions = model.predict(inputs, batch_size=2)
    assert [prediction["file"] for prediction in predictions] == [
        str(path),
        None,
        str(tmp_path / "broken.png"),
        None,
        str(path),
    ]
    broken = predictions.pop(2)
    assert "error" in broken and not kinds & broken.keys()
    for prediction in predictions:
        arrays = {
            kind: value for kind, value in prediction.items() if isinstance(value, np.ndarray)
        }
        assert arrays.keys() == kinds and all(array.dtype == np.uint8 for array in arrays.values())
    if task_name == "segmentation":
        assert (
            predictions[1]["ids"].shape == wide.shape[:2]
            and predictions[1]["colors"].shape == wide.shape
        )
    if task_name == "super_resolution":
        assert predictions[1]["results"].shape == (2 * wide.shape[0], 2 * wide.shape[1], 3)
    bare = model.predict(inputs[:2], batch_size=2, draw=False)[0]
    assert bare.keys() == predictions[0].keys() - {"image"}
    assert all(np.array_equal(value, predictions[0][key]) for key, value in bare.items())
    assert [prediction["file"] for prediction in model.predict(images)][-1] == "deep/6.png"
    with pytest.raises(UserError, match="no such file or folder"):
        model.predict(tmp_path / "nothing")


def test_a_second_press_of_the_stop_button_raises_and_ends_no_process():
    stop = StopFlag()
    stop.install()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        time.sleep(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.uninstall()
