"""`--augment` in runs: what is kept of the function, and what a resumed run may change."""

import json
from pathlib import Path

import pytest

from visionloop.bin.commands.replay import run_replay
from visionloop.datasets.synthetic.writers import write_classification
from visionloop.engine.branches.record import read_record
from visionloop.engine.errors import UserError
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask

DARKER = """
import torch


def augment(sample, generator):
    sample["image"] = sample["image"] // int(torch.randint(1, 4, (), generator=generator))
    return sample


def other(sample, generator):
    return sample
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with data/, own.py and the finished run first/ of two steps."""
    folder = tmp_path_factory.mktemp("augment")
    write_classification(folder / "data", 0, {"train": 16, "val": 4}, sides=(24, 32))
    (folder / "own.py").write_text(DARKER)
    start(folder, "first")
    return folder


def start(folder, output, **settings):
    flags = dict(
        data=str(folder / "data"),
        model="tiny",
        from_scratch=True,
        image_size=16,
        steps=2,
        batch_size=8,
        micro_batch=8,
        eval_every=2,
        save_every=1,
        log_every=1,
        keep=9,
        workers=0,
        threads=1,
        device="cpu",
        precision="fp32",
        augment=f"{folder / 'own.py'}:augment",
        output=str(folder / output),
    )
    return train(ClassificationTask, **(flags | settings))


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_a_run_keeps_the_text_and_names_the_function(begun):
    run = begun / "first"
    assert (run / "augment.py").read_text() == DARKER
    settings = json.loads((run / "settings.json").read_text())["settings"]
    assert settings["augment_fingerprint"]["value"].startswith("augment sha256:")
    card = (run / "best/README.md").read_text()
    assert "- augment: augment of own.py, before the augmentation above" in card
    assert str(begun) not in card


def test_the_function_changes_the_training_and_our_augmentation_stays(begun):
    start(begun, "same", augment=f"{begun / 'own.py'}:other")
    start(begun, "none", augment=None, scaled_decode=False)
    first, same, none = (losses(begun / name) for name in ("first", "same", "none"))
    assert same == none != first


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"augment": None}, "--augment: the run in {} has one, this command has none"),
        ({"augment": "{}/own.py:other"}, "began with the function augment"),
        ({"augment": "{}/edited.py:augment"}, "edited.py:augment: the file has changed since"),
        ({"augment_only": True}, "began without --augment-only"),
    ],
    ids=["none", "another function", "an edited file", "only"],
)
def test_a_run_is_not_resumed_with_another_function(begun, settings, why):
    (begun / "edited.py").write_text(DARKER.replace("4", "5"))
    if settings.get("augment"):
        settings = settings | {"augment": settings["augment"].format(begun)}
    with pytest.raises(UserError) as caught:
        start(begun, "first", **settings)
    assert why.format(begun / "first/checkpoints/step_00000002") in str(caught.value)
    assert (caught.value.code, "\n" in str(caught.value)) == ("changed_augment", False)


def test_a_run_resumes_with_its_own_copy_from_any_folder(begun, monkeypatch):
    monkeypatch.chdir(begun / "first")
    assert start(begun, "first", augment="augment.py:augment").state == "finished"


def test_a_replay_uses_the_text_that_the_run_began_with(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_text", read_all_but(begun / "own.py"))
    replay = {"device": "cpu", "as_json": True, "output": tmp_path / "replay"}
    run_replay(ClassificationTask, run=begun / "first", step=2, **replay)
    report = json.loads((tmp_path / "replay/replay.json").read_text())
    assert report["losses"]["loss"] == losses(begun / "first")[1]


def read_all_but(file):
    """Return `Path.read_text` that fails for a file."""
    read_text = Path.read_text

    def read(path, *args, **options):
        assert path != file
        return read_text(path, *args, **options)

    return read


def test_an_option_that_leads_nowhere_is_refused_before_the_run_begins(begun):
    for settings, why in (
        ({"augment": None, "augment_only": True}, "--augment-only: needs --augment FILE.py:NAME"),
        ({"augment": "absent.py:augment"}, "--augment absent.py:augment: no such file below"),
    ):
        with pytest.raises(UserError) as caught:
            start(begun, "refused", **settings)
        assert why in str(caught.value)
    assert not (begun / "refused/checkpoints").exists()


def test_an_error_in_mid_run_keeps_a_checkpoint_and_is_never_skipped(begun):
    (begun / "late.py").write_text(
        "def augment(sample, generator):\n"
        f"    import pathlib\n    if pathlib.Path({str(begun)!r}, 'late/checkpoints').exists():\n"
        "        raise FileNotFoundError('gone')\n    return sample\n"
    )
    with pytest.raises(UserError) as caught:
        start(
            begun,
            "late",
            augment=f"{begun / 'late.py'}:augment",
            skip_unreadable=True,
            steps=40,
            save_async=False,
        )
    assert str(caught.value).endswith("late.py:augment: FileNotFoundError: gone")
    assert str(caught.value).startswith(str(begun / "data/train"))
    assert "in augment" in caught.value.details
    status = json.loads((begun / "late/status.json").read_text())
    assert (status["state"], status["error"]["code"]) == ("failed", "bad_augment")
    assert list((begun / "late/checkpoints").iterdir())


def test_a_branch_may_have_another_function_and_records_it(begun):
    source, own = f"{begun / 'first'}@1", f"{begun / 'own.py'}"
    start(begun, "other", branch=source, augment=f"{own}:other")
    names = [value.split(" ")[0] for value in read_record(begun / "other")["changes"]["augment"]]
    assert names == ["augment", "other"]
    start(begun, "kept", branch=source)
    assert read_record(begun / "kept")["changes"] == {}
