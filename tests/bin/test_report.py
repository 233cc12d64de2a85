"""`visionloop-report` as a person types it: one page of real runs, of broken ones, and the list of them."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from toy_task import ToyTask

from visionloop.bin import report
from visionloop.bin.reports import records
from visionloop.bin.reports.contents import names_of
from visionloop.bin.reports.curves import MOST_POINTS, summarize, thin
from visionloop.bin.reports.page import HERE, SCRIPTS, make_page
from visionloop.datasets.synthetic.writers import WRITERS
from visionloop.engine.errors import UserError
from visionloop.engine.logging.status_file import failed_at_start
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask

ROOT = Path(__file__).parents[2]
commands = report.command  # what the fixture `command` runs
SCHEMA = Draft202012Validator(json.loads((HERE / "schema.json").read_text()))
SMALL = dict(
    steps=6,
    eval_every=2,
    log_every=1,
    workers=0,
    threads=1,
    device="cpu",
    batch_size=4,
    precision="fp32",
)
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)> & \u2028 {{style}} 고양이"


NO_RUN = "not a run's folder (none of settings.json, status.json, metrics.jsonl in it)"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a real task, evaluated three times."""
    folder = tmp_path_factory.mktemp("runs")
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


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(
        trained,
        tmp_path / "run",
        ignore=shutil.ignore_patterns("checkpoints", "best", "tensorboard"),
    )


@pytest.fixture
def object_of(command, tmp_path):
    """object_of(run, ..): what `--json` writes, which fits the schema and makes a page."""

    def read(*runs):
        code, out, err = command(*runs, "--json", tmp_path / "object.json")
        assert (code, err) == (0, "") and out.splitlines()[-1].startswith(
            f"{tmp_path / 'object.json'}: "
        )
        found = json.loads((tmp_path / "object.json").read_text())
        SCHEMA.validate(found)
        assert json.loads(scripts_of(make_page(found))[0]) == found
        return found

    return read


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.lasttag == "script" and text.strip():
            self.scripts.append(text)


def tags_of(page):
    parser = Tags()
    parser.feed(page)
    return parser.found


def scripts_of(page):
    """[the object's text, the program]."""
    parser = Tags()
    parser.feed(page)
    return parser.scripts


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def steps_with_images(run):
    """Not all evaluations keep images, the first and the last do."""
    found = [json.loads(path.read_text()) for path in sorted(run.glob("evaluations/*/record.json"))]
    steps = [record["step"] for record in found if record["fixed"][0]["image"]]
    assert steps[0] == 2 and steps[-1] == 6
    return steps


def last_record(run):
    return sorted((run / "evaluations").glob("step_*"))[-1] / "record.json"


def test_the_schema_refuses_what_is_not_so(object_of, run):
    Draft202012Validator.check_schema(SCHEMA.schema)
    found = object_of(run)
    for wrong in (
        {},
        found | {"schema": 2},
        found | {"runs": []},
        found | {"runs": [found["runs"][0] | {"best": {}}]},
    ):
        assert list(SCHEMA.iter_errors(wrong))


def test_the_object_of_a_run_says_what_its_files_say(object_of, run):
    found = object_of(run)
    (shown,) = found["runs"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["kind"] == "eval"]
    accuracy = next(score for score in shown["scores"] if score["key"] == "accuracy")
    assert accuracy["steps"] == [2, 4, 6]
    for key, logged in (("values", "metrics"), ("raw", "metrics_raw")):
        assert accuracy[key] == pytest.approx(
            [line[logged]["accuracy"] for line in scored], rel=1e-5
        )
    assert all(
        low <= value <= high
        for low, value, high in zip(
            accuracy["low"], accuracy["values"], accuracy["high"], strict=True
        )
    )
    loss = next(curve for curve in shown["curves"] if curve["name"] == "loss")
    assert (loss["group"], loss["steps"], loss["logged"]) == ("loss", [1, 2, 3, 4, 5, 6], 6)
    assert shown["settings"]["steps"] == {"value": 6, "source": "flag"}
    assert (shown["state"], shown["step"], shown["model"], shown["data"], shown["notes"]) == (
        "finished",
        6,
        "tiny",
        "data",
        [],
    )
    (task,) = found["tasks"]
    labels = {metric["key"]: metric["label"] for metric in task["metrics"]}
    assert (task["label"], task["primary"], labels["val_loss"]) == (
        "Image classification",
        "accuracy",
        "validation loss",
    )


def test_samples_and_classes_are_those_of_the_records(object_of, run):
    (shown,) = object_of(run)["runs"]
    record = json.loads(last_record(run).read_text())
    assert [one["step"] for one in shown["fixed"]["shown"]] == steps_with_images(run)
    for key, samples in (
        ("fixed", shown["fixed"]["shown"][-1]["samples"]),
        ("worst", shown["worst"]["samples"]),
    ):
        assert [sample["name"] for sample in samples] == [sample["name"] for sample in record[key]]
        assert all(sample["image"].startswith("data:image/jpeg;base64,") for sample in samples)
    last = shown["last_evaluation"]
    assert (last["step"], last["classes"], last["confusion"]) == (
        6,
        record["classes"],
        record["confusion"],
    )


def test_a_task_outside_the_table_is_shown_by_its_keys(object_of, tmp_path):
    train(ToyTask, model="toy", output=str(tmp_path / "toy"), **SMALL)
    (task,) = object_of(tmp_path / "toy")["tasks"]
    assert task["primary"] is None
    assert {metric["key"] for metric in task["metrics"]} == {
        metric.key for metric in ToyTask.metrics
    }
    assert all(metric["label"] == metric["key"].replace("_", " ") for metric in task["metrics"])


def hostile(run):
    """The same run with a hostile text in every place that a person or a dataset fills."""

    def edit(record):
        record["fixed"][0]["name"] = record["worst"][0]["name"] = HOSTILE
        record["classes"]["rows"][0]["name"] = record["confusion"]["classes"][0] = HOSTILE
        record["reference"][HOSTILE] = 0.5
        record["curves"] = [
            {
                "title": HOSTILE,
                "x": HOSTILE,
                "y": HOSTILE,
                "lines": [{"name": HOSTILE, "x": [0, 1], "y": [0, 1]}],
            }
        ]

    for path in (run / "evaluations").glob("*/record.json"):
        change(path, edit)
    change(
        run / "settings.json",
        lambda content: content["settings"].update(
            {HOSTILE: {"value": HOSTILE, "source": HOSTILE}}
        ),
    )
    change(
        run / "environment.json",
        lambda content: content.update({"command": [HOSTILE], HOSTILE: HOSTILE}),
    )
    change(
        run / "status.json",
        lambda content: content.update(state="failed", error={"message": HOSTILE}),
    )
    return run


def test_texts_of_the_data_never_become_html(command, object_of, run, tmp_path):
    assert command(run, "--output", tmp_path / "plain.html")[0] == 0
    plain = tags_of((tmp_path / "plain.html").read_text())
    object_of(hostile(run))  # reads back as it was, {{style}} too
    assert command(run, "--output", tmp_path / "hostile.html")[0] == 0
    page = (tmp_path / "hostile.html").read_bytes()
    assert tags_of(page.decode("ascii")) == plain
    assert not set(scripts_of(page.decode())[0]) & set("<>&\u2028\u2029")


def test_a_page_asks_for_nothing_from_outside(command, run):
    assert command(run)[0] == 0
    page = (run / "report.html").read_text()
    tags = tags_of(page)
    policy = next(
        attributes["content"]
        for tag, attributes in tags
        if "Content-Security-Policy" in attributes.values()
    )
    assert (
        policy.split("; ")[0] == "default-src 'none'"
        and "img-src data:;" in policy
        and "connect-src" not in policy
    )
    addresses = [
        attributes[name] for _, attributes in tags for name in ("src", "href") if name in attributes
    ]
    assert addresses == ["data:,"]  # no icon: a browser would ask for one
    assert re.findall(r"https?://[^\"'\s]+", scripts_of(page)[1]) == ["http://www.w3.org/2000/svg"]
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_the_script_never_reads_texts_as_html():
    for name in SCRIPTS:
        text = (HERE / name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|</script",
            text,
        ), name


@pytest.mark.skipif(BROWSER is None, reason="no chromium: the page's script is not run")
def test_a_browser_draws_every_part_and_shows_hostile_texts_as_texts(command, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    assert command(hostile(run), other, "--output", tmp_path / "page.html")[0] == 0
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
    ]
    flags += ["--enable-logging=stderr", "--dump-dom"]
    shown = subprocess.run(
        [BROWSER, *flags, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in shown.stderr
    tags = tags_of(shown.stdout)
    parts = [attributes["id"] for tag, attributes in tags if tag == "section"]
    charts, tables = (
        ["scores", "losses", "speed", "curves"],
        ["classes", "confusion", "samples", "worst", "time_breakdown"],
    )
    assert parts == [*charts, *tables, "settings", "environment", "repeat", "missing"]
    assert [tag for tag, _ in tags].count("script") == 2 and "taken" not in re.search(
        "<title>(.*?)</title>", shown.stdout
    )[1]
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 24 and all(
        image["src"].startswith("data:image/jpeg;base64,") for image in images
    )
    assert any(image["alt"] == HOSTILE for image in images)
    assert [tag for tag, _ in tags].count("path") >= 10  # lines of charts


@pytest.mark.parametrize("points", [0, 1, MOST_POINTS, MOST_POINTS + 1, 100_000])
def test_a_long_curve_has_its_mean_and_its_extremes(points):
    values = noise(points)
    known = [value for value in values if value is not None]
    found = summarize(list(enumerate(values)))
    assert (
        len({len(row) for row in found.values() if row is not None}) == 1
        and len(found["steps"]) <= MOST_POINTS
    )
    if points <= MOST_POINTS:
        assert (
            found["steps"] == list(range(points))
            and found["low"] is None
            and found["values"].count(None) == values.count(None)
        )
        assert [value for value in found["values"] if value is not None] == pytest.approx(
            known, rel=1e-5
        )
        return
    means = [value for value in found["values"] if value is not None]
    assert sum(means) / len(means) == pytest.approx(sum(known) / len(known), abs=0.02)
    lows, highs = ([value for value in found[key] if value is not None] for key in ("low", "high"))
    assert (min(lows), max(highs)) == pytest.approx((min(known), max(known)), rel=1e-5)
    assert all(low <= mean <= high for low, mean, high in zip(lows, means, highs, strict=True))


def noise(points):
    chance = random.Random(points)
    return [None if chance.random() < 0.001 else chance.gauss(0, 1) for _ in range(points)]


@pytest.mark.parametrize("points", [0, 1, MOST_POINTS, MOST_POINTS + 1, 100_000])
def test_thinning_keeps_ends_extremes_and_gaps(points):
    values = noise(points)
    kept = thin(values)
    assert kept == sorted(set(kept)) and len(kept) == min(points, len(kept)) <= MOST_POINTS
    if points <= MOST_POINTS:
        assert kept == list(range(points))
        return
    known = [value for value in values if value is not None]
    shown = [values[i] for i in kept]
    assert {0, points - 1} <= set(kept) and {min(known), max(known)} <= set(shown)
    assert (None in shown) == (None in values)


@pytest.mark.parametrize(
    "name", ["settings.json", "environment.json", "status.json", "metrics.jsonl", "evaluations"]
)
@pytest.mark.parametrize("content", [None, "", "[]", '{"half": '])
def test_a_missing_or_broken_part_is_told_and_the_rest_is_shown(object_of, run, name, content):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if content is not None:
        path.write_text(content)
    (shown,) = object_of(run)["runs"]
    assert shown["notes"]
    assert bool(shown["scores"]) == (name != "metrics.jsonl")
    assert (shown["fixed"] is None) == (name == "evaluations")
    assert bool(shown["settings"]) == (name != "settings.json") and (
        shown["state"] == "unknown"
    ) == (name == "status.json")


def test_half_a_last_line_is_left_out(object_of, run):
    path = run / "metrics.jsonl"
    before = object_of(run)["runs"][0]
    path.write_bytes(path.read_bytes() + b'{"time": 1.0, "step": 7, "ki\xff')
    (after,) = object_of(run)["runs"]
    assert after["curves"] == before["curves"] and after["notes"] == [
        "metrics.jsonl: the last line is half-written and left out"
    ]


def test_a_run_that_failed_before_its_first_step_is_shown_with_its_error(object_of, tmp_path):
    folder = tmp_path / "failed"
    folder.mkdir()
    status = failed_at_start(UserError("--data x: no such folder", code="bad_layout", field="data"))
    (folder / "status.json").write_text(json.dumps(status))
    (shown,) = object_of(folder)["runs"]
    assert (shown["state"], shown["error"], shown["best"], shown["scores"]) == (
        "failed",
        "--data x: no such folder",
        None,
        [],
    )


def test_a_run_without_a_heartbeat_is_lost(object_of, run):
    change(
        run / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 30),
    )
    assert object_of(run)["runs"][0]["state"] == "running"
    change(
        run / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 90),
    )
    assert object_of(run)["runs"][0]["state"] == "lost"


def test_numbers_that_are_not_finite_are_gaps(object_of, run):
    lines = (run / "metrics.jsonl").read_text().replace('"loss": ', '"loss": NaN, "was": ', 1)
    (run / "metrics.jsonl").write_text(lines)
    (shown,) = object_of(run)["runs"]
    loss = next(curve for curve in shown["curves"] if curve["name"] == "loss")
    assert (loss["values"].count(None), loss["gaps"], loss["logged"]) == (1, 1, 6)


def test_no_file_from_outside_the_record_gets_into_a_page(object_of, run, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.jpg")
    folder = last_record(run).parent
    (folder / "linked.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "note.txt").write_text("private")

    names = ("../../../secret.jpg", str(tmp_path / "secret.jpg"), "linked.jpg", "note.txt")

    def edit(record):
        for sample, name in zip(record["worst"], names, strict=False):
            sample["image"] = name

    change(last_record(run), edit)
    (shown,) = object_of(run)["runs"]
    images = [sample["image"] for sample in shown["worst"]["samples"]]
    assert images[:4] == [None] * 4 and all(images[4:]) and len(shown["notes"]) == 4


def test_images_of_many_evaluations_are_few_and_evenly_spread(object_of, run):
    first, drawn = sorted((run / "evaluations").iterdir())[0], len(steps_with_images(run))
    for step in range(7, 107):
        folder = shutil.copytree(first, run / "evaluations" / f"step_{step:08d}")
        change(folder / "record.json", lambda record, step=step: record.update(step=step))
    fixed = object_of(run)["runs"][0]["fixed"]
    steps = [one["step"] for one in fixed["shown"]]
    assert len(steps) == records.FIXED_STEPS and (steps[0], steps[-1], fixed["evaluations"]) == (
        2,
        106,
        drawn + 100,
    )
    assert max(b - a for a, b in pairwise(steps)) <= 14


def test_evaluations_without_images_leave_the_last_ones_in_the_gallery(object_of, run):
    def edit(record):
        for sample in record["fixed"] + record["worst"]:
            sample["image"] = None

    before = steps_with_images(run)[-2]
    change(last_record(run), edit)
    (shown,) = object_of(run)["runs"]
    assert (shown["last_evaluation"]["step"], shown["worst"]["step"], shown["notes"]) == (
        6,
        before,
        [],
    )


def test_two_runs_stand_in_one_page_under_names_that_tell_them_apart(object_of, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other" / "run")
    found = object_of(run, other)
    assert [one["name"] for one in found["runs"]] == [f"{tmp_path.name}/run", "other/run"] and len(
        found["tasks"]
    ) == 1
    assert names_of([Path("/a/b/x"), Path("/a/b/y")]) == ["x", "y"]


def test_how_to_repeat_is_the_command_as_typed(object_of, run):
    words = ["bin/classification.py", "train", "--data", "my images", "--model", "tiny"]
    change(
        run / "environment.json",
        lambda content: content.update(command=words, processes=1, git_commit="abc"),
    )
    repeat = object_of(run)["runs"][0]["repeat"]
    assert (repeat["command"], repeat["commit"]) == (
        "python bin/classification.py train --data 'my images' --model tiny",
        "abc",
    )
    assert (
        repeat["from_settings"]
        == f"python bin/classification.py train --config {run}/settings.json --output NEW"
    )
    change(run / "environment.json", lambda content: content.update(processes=4))
    assert object_of(run)["runs"][0]["repeat"]["command"].startswith(
        "torchrun --nproc-per-node 4 bin/classification.py"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such folder, expected a run's\n"),
        (["{folder}"], f"error: {{folder}}: {NO_RUN}; `list` shows the runs below a folder\n"),
        (["{run}/evaluations"], f"error: {{run}}/evaluations: {NO_RUN}; did you mean {{run}}?\n"),
        (["{run}", "{run}"], "error: RUN: the same folder is named twice\n"),
        (["{run}", "--output", "{run}"], "error: --output {run}: is a folder, expected a file\n"),
        (["{run}", "--output", "{run}/status.json/x.html"], "error: --output {run}/status.json/x.html: cannot write (File exists)\n"),
        (["list", "nowhere"], "error: nowhere: no such folder, expected one with runs\n"),
        (["{run}", "--jsn", "x"], "error: --jsn: no such option; did you mean --json?\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(command, run, arguments, message):
    places = {"run": run, "folder": run.parent}
    assert command(*(argument.format(**places) for argument in arguments)) == (
        2,
        "",
        message.format(**places),
    )


def test_without_arguments_the_help_is_shown_line_by_line(command):
    code, printed, told = command()
    assert (
        (code, printed) == (2, "")
        and told.startswith("Usage: ")
        and "\n  list " in told
        and "\n  write " in told
    )


def test_the_page_lies_in_the_folder_of_its_run_unless_told_otherwise(
    command, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(run, tmp_path / "other")
    assert command(run)[1].startswith(f"{run / 'report.html'}: ")
    assert (
        command("write", run, other)[1].startswith("report.html: ")
        and (tmp_path / "report.html").is_file()
    )
    assert (
        command("--output", "deep/x.html", run)[0] == 0 and (tmp_path / "deep" / "x.html").is_file()
    )


def test_list_has_a_line_for_each_run_the_latest_first(command, run, tmp_path):
    older = shutil.copytree(run, tmp_path / "deep" / "older")
    shutil.copytree(run, tmp_path / ".hidden")
    (tmp_path / "empty").mkdir()
    change(run / "status.json", lambda content: content.update(heartbeat=time.time() - 5))
    change(
        older / "status.json",
        lambda content: content.update(state="running", heartbeat=time.time() - 7200),
    )
    code, out, _ = command("list", tmp_path, "--json")
    rows = json.loads(out)
    assert code == 0 and [(row["name"], row["state"], row["task"]) for row in rows] == [
        ("run", "finished", "classification"), ("deep/older", "lost", "classification"),
    ]  # fmt: skip
    assert (rows[0]["step"], rows[0]["steps"], rows[0]["best"]["metric"]) == (
        6,
        6,
        "accuracy",
    ) and rows[1]["age_seconds"] >= 7200
    code, out, _ = command("list", tmp_path)
    head, *lines = out.splitlines()
    assert code == 0 and head.split() == ["run", "task", "state", "step", "best", "last", "sign"]
    assert re.fullmatch(
        r"deep/older +classification +lost +6/6 +accuracy [01]\.\d{4} at step \d +2 h ago", lines[1]
    )


def test_list_shows_runs_whose_files_are_broken(command, tmp_path):
    for name, content in (
        ("a", "[]"),
        ("b", '{"settings": []}'),
        ("c", '{"settings": {"task": 3}}'),
        ("d", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(content)
    code, out, _ = command("list", tmp_path)
    assert code == 0 and [line.split()[:4] for line in out.splitlines()[1:]] == [
        [name, "-", "unknown", "-"] for name in "abcd"
    ]
    (tmp_path / "none").mkdir()
    assert command("list", tmp_path / "none") == (0, f"{tmp_path / 'none'}: no run\n", "")


def test_help_and_list_import_no_torch(tmp_path):
    code = """
import sys
from visionloop.bin.report import command
for arguments in (["--help"], ["write", "--help"], ["list", sys.argv[1]]):
    command.main(arguments, standalone_mode=False)
assert not {"torch", "transformers"} & set(sys.modules), "imported"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
