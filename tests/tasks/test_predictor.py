"""A trained model in a notebook: scores, answers and images as values, and a kernel that outlives what is done in it."""

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
from visionloop.tasks.predictor import Trained

README = (Path(__file__).parents[2] / "README.md").read_text()


def execute_cell(code):
    """What a kernel does with a cell: {name: value} afterwards, and the value of its last line, if that is an expression."""
    names, parsed = {}, ast.parse(code)
    last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
    exec(compile(parsed, "cell", "exec"), names)
    return names, eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_cell_of_the_readme_runs_inside_a_kernels_loop_and_shows_an_answer(
    tmp_path, monkeypatch, capsys
):
    write_classification(tmp_path / "images")
    (code,) = re.findall(r"### In a notebook\n.*?```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    waiting = threading.Event()
    for _ in range(3):  # as those of a kernel
        threading.Thread(target=waiting.wait, daemon=True).start()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def cell():
        return execute_cell(code)

    names, shown = asyncio.run(cell())
    waiting.set()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert names["model"].evaluate("images")["accuracy"] == names["result"].best["score"]
    answers = names["answers"]
    assert [answer["file"] for answer in answers][::4] == ["dark/0.png", "light/0.png"] and len(
        answers
    ) == 8
    assert isinstance(shown, Image.Image) and np.array_equal(np.asarray(shown), answers[0]["image"])
    assert f"dark/0.png {answers[0]['label']} {answers[0]['score']}" in capsys.readouterr().out


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
    found = {}

    def run(name, workers):
        found[name] = train(
            ClassificationTask, output=str(tmp_path / name), workers=workers, **options
        ).scores

    run("first", 0)
    run("second", 1)
    thread = threading.Thread(target=run, args=("third", 0))
    thread.start()
    thread.join()
    assert found["first"]["val_loss"] == found["second"]["val_loss"] == found["third"]["val_loss"]


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
def test_answers_have_their_images_beside_them(task_name, kinds, images, tmp_path):
    model = Trained(load_task_class(task_name), write_model(task_name, tmp_path), device="cpu")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    path = images / "1.jpg"
    wide = np.asarray(Image.open(images / "deep" / "0.png"))
    given = [path, wide, tmp_path / "broken.png", Image.open(path), str(path)]
    answers = model.predict(given, batch_size=2)
    assert [answer["file"] for answer in answers] == [
        str(path),
        None,
        str(tmp_path / "broken.png"),
        None,
        str(path),
    ]
    broken = answers.pop(2)
    assert "error" in broken and not kinds & broken.keys()
    for answer in answers:
        arrays = {kind: value for kind, value in answer.items() if isinstance(value, np.ndarray)}
        assert arrays.keys() == kinds and all(array.dtype == np.uint8 for array in arrays.values())
    if task_name == "segmentation":
        assert (
            answers[1]["ids"].shape == wide.shape[:2] and answers[1]["colors"].shape == wide.shape
        )
    if task_name == "super_resolution":
        assert answers[1]["results"].shape == (2 * wide.shape[0], 2 * wide.shape[1], 3)
    bare = model.predict(given[:2], batch_size=2, draw=False)[0]
    assert bare.keys() == answers[0].keys() - {"image"}
    assert all(np.array_equal(value, answers[0][key]) for key, value in bare.items())
    assert [answer["file"] for answer in model.predict(images)][-1] == "deep/6.png"
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
