"""The examples of the README give the results that it shows."""

import re
from pathlib import Path

from PIL import Image
from transformers import AutoModelForImageClassification

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_five_lines_of_python_train_a_model_that_transformers_loads(
    tmp_path, monkeypatch, capsys
):
    for split, number in (("train", 6), ("val", 3)):
        for shade, name in ((40, "dark"), (200, "light")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (40, 30), (shade + 3 * i, shade, shade)).save(folder / f"{i}.png")
    (lines,) = re.findall(r"```python\n(from visionloop.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert "runs/first/best" in capsys.readouterr().out
    assert AutoModelForImageClassification.from_pretrained("runs/first/best").config.id2label == {
        0: "dark",
        1: "light",
    }


def test_every_file_that_the_readme_links_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_image_of_the_readme_is_small():
    assert (ROOT / "tasks" / "classification" / "predictions.png").stat().st_size < 150_000


def test_the_lines_of_the_loop_in_the_readme_are_the_loops_own():
    (lines,) = re.findall(r"```python\n(while True:.*?)```", README, re.DOTALL)
    loop = re.sub(r"\s+", " ", (ROOT / "engine" / "loop.py").read_text())
    for line in lines.splitlines():
        code = re.sub(r"\s+", " ", line.split("#")[0].strip())
        # the README leaves the clock out and reads the losses in place
        if (
            code
            and "counts = " not in code
            and "agreed = " not in code
            and "run.log.training" not in code
        ):
            assert code in loop, code
