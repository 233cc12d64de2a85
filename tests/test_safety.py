"""Foreign files are read, never run; nothing is read or written outside the given folders."""

import json
import os
import pickle
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from detection_files import small_coco, write_coco
from PIL import Image
from segmentation_files import write_segmentation_data
from super_resolution_files import write_super_resolution_data

from visionloop.bin import classification, detection, segmentation, super_resolution
from visionloop.bin.commands.cli import run_commands
from visionloop.datasets.detection.index import read_coco
from visionloop.datasets.detection.yolo import read_yolo
from visionloop.datasets.io.images import MAX_PIXELS
from visionloop.datasets.io.layout import DataLayoutError
from visionloop.datasets.segmentation.class_file import plain_class_file
from visionloop.datasets.segmentation.masks import UnreadableMask, read_mask
from visionloop.datasets.synthetic.detection import write_detection
from visionloop.engine.errors import UserError
from visionloop.engine.train import train
from visionloop.tasks.classification.task import ClassificationTask
from visionloop.tasks.detection.task import DetectionTask
from visionloop.tasks.segmentation.semantic.task import SemanticTask
from visionloop.tasks.super_resolution.task import SuperResolutionTask

COMMANDS = {
    module.__name__.split(".")[-1]: module.commands
    for module in (classification, detection, segmentation, super_resolution)
}
TASKS = {
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "segmentation": SemanticTask,
    "super_resolution": SuperResolutionTask,
}
SHORT = dict(
    batch_size=4,
    workers=0,
    threads=1,
    precision="fp32",
    device="cpu",
    eval_every=0,
    ema=False,
    steps=2,
    save_every=1,
    keep=2,
)
SIZES = {
    "classification": {"image_size": 32},
    "detection": {"image_size": 96},
    "segmentation": {"image_size": 32},
    "super_resolution": {"patch_size": 16, "cache": "none"},
}
AUTO_CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForObjectDetection",
    "AutoModelForUniversalSegmentation",
    "AutoModelForImageToImage",
    "AutoImageProcessor",
)
PICKLES = (
    "pytorch_model.bin",
    "optimizer.bin",
    "scheduler.bin",
    "random_states_0.pkl",
    "training_args.bin",
    "model.pt",
)


def write_classes(folder):
    """Two classes of two flat images, train and val."""
    for split in ("train", "val"):
        for label in ("dark", "light"):
            (folder / split / label).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (40, 32), (200 * (label == "light"), 20 * i, 9)).save(
                    folder / split / label / f"{i}.png"
                )


WRITERS = {
    "classification": write_classes,
    "detection": lambda folder: write_detection(folder, 0, images={"train": 4, "val": 2}),
    "segmentation": lambda folder: write_segmentation_data(folder, images=4),
    "super_resolution": lambda folder: write_super_resolution_data(folder, images=4, given=[2]),
}
IMAGES = {
    "classification": "val",
    "detection": "val",
    "segmentation": "images/val",
    "super_resolution": "val/LR_x2",
}


@dataclass(frozen=True)
class Trained:
    """A run of two steps, its data, and the commands of its task."""

    task: str
    data: Path
    run: Path

    @property
    def images(self):
        return self.data / IMAGES[self.task]

    def __call__(self, *arguments):
        """The exit code of a command."""
        try:
            run_commands(COMMANDS[self.task], [str(argument) for argument in arguments])
        except SystemExit as error:
            return error.code or 0
        return 0

    def train(self, output, **settings):
        return train(
            TASKS[self.task],
            data=str(self.data),
            output=str(output),
            **SHORT,
            **SIZES[self.task],
            **settings,
        )


@pytest.fixture(scope="module", params=list(COMMANDS))
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model_run = Trained(request.param, folder / "data", folder / "run")
    model_run.data.mkdir()
    WRITERS[request.param](model_run.data)
    model_run.train(model_run.run, model="tiny", from_scratch=True)
    return model_run


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def plant(folder, marker):
    """Write pickles under every name that libraries look for, and code that configs point to."""
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Trap(marker)))
    code = f"open({str(marker)!r}, 'w')\n"
    for name in ("configuration_trap", "modeling_trap", "processing_trap", "__init__", "setup"):
        (folder / f"{name}.py").write_text(code)
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        content |= {
            "auto_map": dict.fromkeys(AUTO_CLASSES, "modeling_trap.Trap"),
            "trust_remote_code": True,
        }
        (folder / name).write_text(json.dumps(content))


def test_the_trap_that_the_others_are_about_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))).close()
    assert (tmp_path / "sprung").exists()


# nothing that is read can run --------------------


@pytest.mark.parametrize("place", ["best", "checkpoints/step_00000002"])
def test_pickles_and_code_beside_the_weights_are_never_opened(trained, tmp_path, place):
    model, marker = shutil.copytree(trained.run / place, tmp_path / "model"), tmp_path / "sprung"
    plant(model, marker)
    assert (
        trained("evaluate", "--model", model, "--data", trained.data, "--json", "--device", "cpu")
        == 0
    )
    assert (
        trained(
            "predict",
            "--model",
            model,
            "--input",
            trained.images,
            "--output",
            tmp_path / "predictions",
            "--device",
            "cpu",
        )
        == 0
    )
    assert trained("export", "--model", model, "--output", tmp_path / "exported") == 0
    trained.train(tmp_path / "run", model=str(model))
    assert not marker.exists()
    # what is passed on holds none of it
    written = [
        path
        for folder in ("exported", "run/best")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file()
    ]
    assert not [
        path.name
        for path in written
        if path.name in PICKLES or path.suffix == ".py" or b"modeling_trap" in path.read_bytes()
    ]


def test_a_run_resumes_beside_planted_pickles(trained, tmp_path):
    run, marker = shutil.copytree(trained.run, tmp_path / "run"), tmp_path / "sprung"
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    for name in PICKLES:
        for folder in (
            run,
            run / "best",
            run / "checkpoints",
            run / "checkpoints" / "step_00000001",
        ):
            (folder / name).write_bytes(pickle.dumps(Trap(marker)))
    trained.train(run, model="tiny", from_scratch=True)
    again, straight = (
        folder / "checkpoints" / "step_00000002" / "model.safetensors"
        for folder in (run, trained.run)
    )
    assert again.read_bytes() == straight.read_bytes() and not marker.exists()


@pytest.mark.parametrize("case", ["weights", "model_type"])
def test_a_model_of_pickles_or_code_alone_is_one_line(trained, tmp_path, capsys, case):
    model, marker = shutil.copytree(trained.run / "best", tmp_path / "model"), tmp_path / "sprung"
    plant(model, marker)
    if case == "weights":
        (model / "model.safetensors").unlink()
    else:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(
            json.dumps(config | {"model_type": "trap", "architectures": ["Trap"]})
        )
    for arguments in (
        ("evaluate", "--model", model, "--data", trained.data),
        (
            "predict",
            "--model",
            model,
            "--input",
            trained.images,
            "--output",
            tmp_path / "predictions",
        ),
        ("export", "--model", model, "--output", tmp_path / "exported"),
    ):
        capsys.readouterr()
        assert trained(*arguments) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: --model") and errors.count("\n") == 1
    with pytest.raises(UserError, match=r"^--model"):
        trained.train(tmp_path / "run", model=str(model))
    assert (
        not marker.exists()
        and not (tmp_path / "predictions").exists()
        and not (tmp_path / "exported").exists()
    )


# nothing is written elsewhere --------------------

ODD_NAMES = (
    "..png",
    "a b.png",
    "-x.png",
    "%2e%2e%2fx.png",
    "..\\..\\x.png",
    "line\nfeed.png",
    "$(touch x).png",
    "é\u202e.png",
    "~.png",
)


def test_predictions_stay_in_the_output_folder_whatever_the_images_are_called(trained, tmp_path):
    image = next(path for path in trained.images.rglob("*") if path.suffix in (".png", ".jpg"))
    for name in ODD_NAMES:
        path = tmp_path / "in" / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, path)
    before = set(tmp_path.rglob("*"))
    way = tmp_path / "in" / "deep" / ".." / ".." / "in"
    assert (
        trained(
            "predict",
            "--model",
            trained.run / "best",
            "--input",
            way,
            "--output",
            tmp_path / "out",
            "--device",
            "cpu",
        )
        == 0
    )
    new = {path for path in tmp_path.rglob("*") if path not in before}
    assert all(path == tmp_path / "out" or tmp_path / "out" in path.parents for path in new)
    files = [
        json.loads(line)["file"]
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    # a name that begins with a dot is hidden
    assert sorted(files) == sorted(f"deep/{name}" for name in ODD_NAMES if not name.startswith("."))


# names of files in files --------------------

OUTSIDE = ("../secret.png", "../../etc/passwd", "a/../../secret.png", "/etc/passwd", "..")


@pytest.fixture
def secret(tmp_path):
    """A data folder beside an image that does not belong to it."""
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("name", [*OUTSIDE, ""])
def test_a_coco_file_name_that_leads_out_is_one_line(secret, name):
    content = small_coco()
    path = write_coco(secret, content)
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(DataLayoutError, match="file_name"):
        read_coco(path, secret / "train")


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("listed", [False, True], ids=["in data.yaml", "in a list"])
def test_a_yolo_path_that_leads_out_is_one_line(secret, name, listed):
    if listed:
        (secret / "list.txt").write_text(f"{name}\n")
    (secret / "data.yaml").write_text(
        f"names: [cat]\ntrain: {'list.txt' if listed else f'[{name!r}]'}\n"
    )
    with pytest.raises(DataLayoutError, match=r"leads out of|leads to") as caught:
        read_yolo(secret / "data.yaml", "train")
    assert "\n" not in str(caught.value)


def test_images_behind_links_are_read(secret, tmp_path):
    """A dataset that is a part of another is often made of links; only their names stay inside."""
    content = small_coco()
    path = write_coco(tmp_path / "store", content)
    (secret / "train").mkdir()
    for image in content["images"]:
        (secret / "train" / image["file_name"]).symlink_to(
            path.parent / "train" / image["file_name"]
        )
    shutil.copy(path, secret / "train.json")
    assert len(read_coco(secret / "train.json", secret / "train")) == 3
    (secret / "images").symlink_to(path.parent / "train")
    (secret / "data.yaml").write_text("names: [cat]\ntrain: images\n")
    (secret / "labels").mkdir()
    (secret / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert len(read_yolo(secret / "data.yaml", "train")) == 3


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "../secret.png"])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_predictions_about_other_files_are_one_line(tmp_path, capsys, task, name):
    data = tmp_path / "data"
    data.mkdir()
    WRITERS[task](data)
    predictions = tmp_path / "x.jsonl"
    predictions.write_text(
        json.dumps({"file": name, "label": "dark", "score": 1.0, "detections": []}) + "\n"
    )
    assert (
        Trained(task, data, tmp_path)("evaluate", "--predictions", predictions, "--data", data) == 2
    )
    errors = capsys.readouterr().err
    assert (
        errors.startswith(f"error: --predictions {predictions}: line 1: file is ")
        and errors.count("\n") == 1
    )


# too large to be an image --------------------


def test_a_mask_that_is_a_decompression_bomb_is_refused_from_its_header(tmp_path):
    """For images see tests/datasets/io/test_images.py."""
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "x.png")
    side = 1 + int(MAX_PIXELS**0.5)
    content = bytearray((tmp_path / "x.png").read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnreadableMask, match="bomb"):
        read_mask(tmp_path / "x.png", plain_class_file(["a", "b"]))


def test_a_pickle_called_a_image_is_no_image(trained, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (
        trained(
            "predict",
            "--model",
            trained.run / "best",
            "--input",
            tmp_path / "in",
            "--output",
            tmp_path / "out",
        )
        == 2
    )
    assert "not an image of a known format" in capsys.readouterr().err and not os.path.exists(
        tmp_path / "sprung"
    )
