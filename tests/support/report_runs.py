"""A trained run for the tests of reports, and edits of its files."""

import json
import shutil
from html.parser import HTMLParser

from jsonschema import Draft202012Validator

from visionloop.bin.reports.page import HERE, make_page
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask

SCHEMA = Draft202012Validator(json.loads((HERE / "schema.json").read_text()))
SMALL = {
    "steps": 6,
    "eval_every": 2,
    "log_every": 1,
    "workers": 0,
    "threads": 1,
    "device": "cpu",
    "batch_size": 4,
    "precision": "fp32",
}


def train_run(folder):
    """A run of a real task, evaluated three times."""
    (folder / "data").mkdir()
    WRITERS["classification"](folder / "data", 0, images={"train": 12, "val": 6})
    train(
        ClassificationTask,
        data=str(folder / "data"),
        model="tiny",
        from_scratch=True,
        output=str(folder / "shapes"),
        **SMALL,
    )
    return folder / "shapes"


def copy_run(trained_run, target):
    """A copy of the files of a run that a report reads."""
    ignored = shutil.ignore_patterns("checkpoints", "best", "tensorboard")
    return shutil.copytree(trained_run, target, ignore=ignored)


def object_reader(command, tmp_path):
    """object_of(run, ..): what `--json` writes, which fits the schema and makes a page."""

    def object_of(*runs):
        file = tmp_path / "object.json"
        code, out, err = command(*runs, "--json", file)
        assert (code, err) == (0, "") and out.splitlines()[-1].startswith(f"{file}: ")
        report = json.loads(file.read_text())
        SCHEMA.validate(report)
        assert json.loads(scripts_of(make_page(report))[0]) == report
        return report

    return object_of


class Tags(HTMLParser):
    """Parser that keeps the tags and the scripts."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.lasttag == "script" and text.strip():
            self.scripts.append(text)


def tags_of(page):
    """[(tag, attributes)]."""
    parser = Tags()
    parser.feed(page)
    return parser.tags


def scripts_of(page):
    """[the object's text, the program]."""
    parser = Tags()
    parser.feed(page)
    return parser.scripts


def change(path, edit):
    """Edit the object in a json file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def last_record(run):
    """The path of the record of the last evaluation."""
    return sorted((run / "evaluations").glob("step_*"))[-1] / "record.json"
