"""Predictions over the API: the six tasks, refused images and models, and lost workers."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import anyio
import numpy as np
import pytest
from PIL import Image
from predict_runs import write_model, write_sure_model
from pycocotools import mask as coco_mask
from small_segments import CLASSES
from starlette.requests import Request
from studio_client import studio_client, studio_config
from studio_server import SECONDS, ApiProblem, studio_server

from visionloop.bin.web.api import predictions
from visionloop.bin.web.config import Limits
from visionloop.bin.web.inference.pool import PoolTimes, PredictorPool
from visionloop.bin.web.inference.process import ModelKey
from visionloop.bin.web.inference.worker import failure_of
from visionloop.bin.web.problems import Problem

TASKS = ("classification", "detection", "segmentation", "super_resolution")
SEGMENT_TASKS = ("instance_segmentation", "panoptic_segmentation")
WIDTH, HEIGHT = 90, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of each task."""
    folder = tmp_path_factory.mktemp("studio")
    for task in TASKS:
        write_model(task, folder / task)
        (folder / "models").mkdir(exist_ok=True)
        shutil.move(folder / task / "model", folder / "models" / task)
    for task in SEGMENT_TASKS:
        shutil.move(write_sure_model(task, folder / task), folder / "models" / task)
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with studio_client(studio_config(folder)) as client:
        client.app.state.studio.predictors.max_workers = len(TASKS) + len(
            SEGMENT_TASKS
        )  # each is loaded once
        yield client


def image_bytes(kind="PNG", width=WIDTH, height=HEIGHT, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def predict(client, model, image=None, **query):
    return client.post(
        "predictions",
        params={"model": str(model), **query},
        content=image_bytes() if image is None else image,
        headers={"Content-Type": "image/png"},
    )


def read_png(client, address):
    response = client.get(f"http://127.0.0.1:8470{address}")
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)))


def worker_pids(client):
    workers = client.app.state.studio.predictors.workers.values()
    return {worker.process.pid for worker in workers}


def test_a_server_with_predictions_imports_neither_torch_nor_transformers(tmp_path):
    code = (
        "import json, sys; from pathlib import Path;"
        "from visionloop.bin.web.app import create_app;"
        "from visionloop.bin.web.config import StudioConfig;"
        "from visionloop.bin.web.tables.local_models import find_local_models;"
        "root = (Path(sys.argv[1]),);"
        "create_app(StudioConfig(root, root, root, root[0] / 'state'), 'token');"
        "find_local_models(root); print(json.dumps(sorted(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", code, tmp_path], text=True)
    loaded = {name.split(".")[0] for name in json.loads(output)}
    assert "fastapi" in loaded and not loaded & {"torch", "transformers", "torchvision"}


def test_a_classifier_gives_as_many_classes_as_asked_for_and_its_attention(client):
    predicted = predict(client, "classification", top_k=2, attention=True).json()
    scores = [one["score"] for one in predicted["top"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    assert predicted["top"][0]["label"] == predicted["prediction"]["label"]
    assert (predicted["width"], predicted["height"]) == (WIDTH, HEIGHT)
    assert predicted["explanations"] == ["attention"]
    assert read_png(client, predicted["images"]["attention"]).ndim == 3


def test_boxes_are_corners_of_the_detections_of_predict(client):
    predicted = predict(client, "detection").json()
    x, y, width, height = predicted["prediction"]["detections"][0]["box"]
    expected = {
        **predicted["prediction"]["detections"][0],
        "box": [x, y, pytest.approx(x + width), pytest.approx(y + height)],
    }
    assert expected in predicted["boxes"]
    assert len(predicted["boxes"]) == len(predicted["prediction"]["detections"])


def test_shares_of_a_segmentation_are_those_of_its_class_map(client):
    predicted = predict(client, "segmentation").json()
    ids = read_png(client, predicted["images"]["ids"])
    assert ids.shape == (HEIGHT, WIDTH)
    counted = {int(i): float((ids == i).mean()) for i in np.unique(ids)}
    given = {one["id"]: one["share"] for one in predicted["classes"]}
    assert given == pytest.approx(counted, abs=1e-5)
    assert len({tuple(one["color"]) for one in predicted["classes"]}) == len(given)


def test_objects_have_the_area_and_the_corners_of_their_masks(client):
    predicted = predict(client, "instance_segmentation").json()
    segments, rows = predicted["segments"], predicted["prediction"]["segments"]
    assert [one["number"] for one in segments] == list(range(1, len(rows) + 1)) and len(rows) > 1
    for segment, row in zip(segments, rows, strict=True):
        mask = coco_mask.decode(row["mask"])
        (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert mask.shape == (HEIGHT, WIDTH) and mask.sum() == segment["area"]
        assert segment["box"] == [left, top, right + 1, bottom + 1]
        assert segment["is_thing"] and 0.05 <= segment["score"] <= 1
    assert [one["score"] for one in segments] == sorted(
        (one["score"] for one in rows), reverse=True
    )


def test_areas_of_panoptic_segments_are_those_of_the_image_of_their_numbers(client):
    predicted = predict(client, "panoptic_segmentation").json()
    numbers = read_png(client, predicted["images"]["segments"]) @ np.array([1, 256, 65536])
    counted = {int(i): int((numbers == i).sum()) for i in np.unique(numbers[numbers > 0])}
    assert {one["number"]: one["area"] for one in predicted["segments"]} == counted != {}
    for segment in predicted["segments"]:
        assert segment["is_thing"] == bool(CLASSES[segment["label"]][2])


def test_result_and_enlarged_input_of_super_resolution_have_one_size(client):
    predicted = predict(client, "super_resolution").json()
    scale = predicted["prediction"]["scale"]
    for name in ("result", "input"):
        image = read_png(client, predicted["images"][name])
        assert image.shape == (scale * HEIGHT, scale * WIDTH, 3)


def test_second_image_of_a_model_is_predicted_by_the_same_process(client):
    first = predict(client, "classification").json()
    before = worker_pids(client)
    for pid in before:  # the first process to end where memory runs out
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    again = [predict(client, "classification").json() for _ in range(3)]
    assert worker_pids(client) == before
    assert all(one["top"] == first["top"] for one in again)
    assert len({one["id"] for one in (first, *again)}) == 4
    assert min(one["seconds"] for one in again) < 1  # without loading; one may be disturbed


def test_images_are_upright_by_their_orientation(client):
    exif = Image.Exif()
    exif[0x0112] = 6
    predicted = predict(client, "detection", image_bytes("JPEG", exif=exif)).json()
    assert (predicted["width"], predicted["height"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_an_image_of_each_format_is_accepted(client, kind):
    assert predict(client, "classification", image_bytes(kind)).status_code == 200


@pytest.mark.parametrize(
    "image",
    [b"no image", image_bytes("GIF"), image_bytes("TIFF"), image_bytes()[:300], b"\xff\xd8\xff"],
)
def test_other_bytes_are_refused_and_the_worker_lives_on(client, image):
    predict(client, "classification")
    before = worker_pids(client)
    response = predict(client, "classification", image)
    assert response.status_code == 422
    assert response.json()["code"] == "unreadable_sample"
    assert worker_pids(client) == before


def test_a_body_without_an_image_type_is_refused_before_it_is_read(client):
    for kind in ("application/json", "multipart/form-data", ""):
        response = client.post(
            "predictions?model=classification", content=b"x", headers={"Content-Type": kind}
        )
        assert (response.status_code, response.json()["field"]) == (415, "content-type")


def test_an_empty_body_is_refused(client):
    assert predict(client, "classification", b"").json()["field"] == "body"


def test_pixels_are_limited_before_they_are_decoded(folder):
    # a file of 4 KB whose header says 300 million pixels
    bomb = Image.new("1", (20_000, 15_000))
    file = io.BytesIO()
    bomb.save(file, "PNG")
    limits = {"decoded_pixels": 4 * WIDTH * HEIGHT}
    with studio_client(studio_config(folder, limits=limits, state=folder / "small")) as client:
        for image in (file.getvalue(), image_bytes(width=400)):
            response = predict(client, "super_resolution", image)
            assert (response.status_code, response.json()["code"]) == (422, "too_large")
        # the image is small enough, but not its result
        response = predict(client, "super_resolution", image_bytes(width=2 * WIDTH))
        assert response.json()["code"] == "too_large"
        assert "the result" in response.json()["detail"]
        assert predict(client, "super_resolution").status_code == 200


def test_models_are_taken_from_below_the_roots_alone(client, folder, tmp_path):
    shutil.copytree(folder / "models/classification", tmp_path / "model")
    (folder / "models/link").symlink_to(tmp_path / "model")
    for model in (tmp_path / "model", "link", "../../model"):
        response = predict(client, model)
        assert (response.status_code, response.json()["code"]) == (403, "outside_roots")


def test_weights_behind_a_link_out_of_the_roots_are_refused(client, folder, tmp_path):
    model = folder / "models/linked"
    shutil.copytree(folder / "models/classification", model)
    (model / "model.safetensors").rename(tmp_path / "outside")
    (model / "model.safetensors").symlink_to(tmp_path / "outside")
    response = predict(client, "linked")
    assert (response.status_code, response.json()["code"]) == (403, "outside_roots")


def test_a_pickle_is_refused_unopened(client, folder):
    pickled = folder / "models/pickled"
    pickled.mkdir(exist_ok=True)
    shutil.copy(folder / "models/classification/config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"never opened")
    before = worker_pids(client)
    response = predict(client, "pickled")
    assert response.status_code == 422
    assert "pytorch_model.bin" in response.json()["detail"] and response.json()["hint"]
    assert worker_pids(client) == before
    models = client.get("predictions/models").json()["models"]
    assert "pickled" not in [model["name"] for model in models]


def test_damaged_weights_are_a_problem_that_names_the_folder(client, folder):
    damaged = folder / "models/damaged"
    shutil.copytree(folder / "models/classification", damaged, dirs_exist_ok=True)
    (damaged / "model.safetensors").write_bytes(b"\xff" * 100)
    response = predict(client, "damaged")
    assert (response.status_code, response.json()["field"]) == (422, "model")
    assert str(damaged) in response.json()["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "google/vit-base-patch16-224",
        "tue-mps/ade20k_semantic_eomt_large_512",
        "tue-mps/coco_instance_eomt_large_640",
    ],
)
def test_a_released_model_is_never_downloaded(client, name):
    response = predict(client, name)
    assert (response.status_code, response.json()["code"]) == (422, "offline")


def test_released_weights_predict_for_the_task_that_they_were_trained_for(client):
    key = predictions.find_model("tue-mps/coco_panoptic_eomt_large_640", None, ())
    assert key.task == "panoptic_segmentation"


def test_models_are_listed_with_task_and_name(client):
    models = client.get("predictions/models").json()["models"]
    by_name = {model["name"]: model for model in models}
    for task in (*TASKS, *SEGMENT_TASKS):
        assert by_name[task]["task"] == task
        assert by_name[task]["source"] == "folder"
    assert by_name["detection"]["task_type"] == "object_detection"


@pytest.mark.slow
def test_a_killed_worker_is_started_again_once(client):
    predict(client, "detection")
    predictors = client.app.state.studio.predictors
    (worker,) = [one for key, one in predictors.workers.items() if key.task == "detection"]
    os.kill(worker.process.pid, signal.SIGKILL)
    assert predict(client, "detection").status_code == 200


def test_weights_that_were_replaced_are_loaded_again(client, folder):
    model = folder / "models/replaced"
    shutil.copytree(folder / "models/classification", model)
    predict(client, "replaced")
    before = worker_pids(client)
    # as a run replaces best/: the new folder gets the old one's name
    shutil.move(model, folder / "models/.old")
    shutil.copytree(folder / "models/.old", model, copy_function=shutil.copy)
    assert predict(client, "replaced").status_code == 200
    assert worker_pids(client) - before


def test_an_upload_that_does_not_end_keeps_no_place(folder, monkeypatch):
    monkeypatch.setattr(predictions, "UPLOAD_SECONDS", 0.1)

    async def ask(studio):
        scope = {"type": "http", "headers": [(b"content-type", b"image/png")]}
        request = Request(scope, anyio.sleep_forever)
        await anext(predictions.uploaded_image(request, studio))

    with studio_client(studio_config(folder, state=folder / "stuck")) as client:
        studio = client.app.state.studio
        for _ in range(studio.config.limits.waiting_uploads + 1):
            with pytest.raises(Problem, match="not complete within"):
                anyio.run(ask, studio)


def test_a_worker_that_dies_at_every_start_is_a_problem(folder, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(folder))  # without the standard library
    with studio_client(studio_config(folder, state=folder / "dying")) as client:
        response = predict(client, "classification")
    assert (response.status_code, response.json()["code"]) == (503, "lost_worker")


def test_time_is_limited_and_the_late_worker_ended(folder):
    with studio_client(studio_config(folder, state=folder / "slow")) as client:
        predictors = client.app.state.studio.predictors
        predictors.times = PoolTimes(load=0.1)
        response = predict(client, "classification")
        assert (response.status_code, response.json()["code"]) == (503, "timeout")
        assert predictors.workers == {}


def test_more_uploads_than_the_limit_are_refused(folder):
    limits = {"waiting_uploads": 2}
    config = studio_config(folder, limits=limits, state=folder / "busy")
    with studio_client(config) as client, ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(lambda _: predict(client, "classification"), range(4)))
        codes = sorted(response.status_code for response in responses)
        assert codes == [200, 200, 429, 429]
        # they count no longer
        assert predict(client, "classification").status_code == 200


@pytest.mark.slow
def test_at_most_two_models_are_loaded(folder):
    with studio_client(studio_config(folder, state=folder / "two")) as client:
        predictors = client.app.state.studio.predictors
        for task in TASKS[:3]:
            assert predict(client, task).status_code == 200
        assert [key.task for key in predictors.workers] == ["detection", "segmentation"]


def test_a_worker_that_nobody_asks_ends(folder, tmp_path):
    pool = PredictorPool(tmp_path / "pool", Limits(), times=PoolTimes(idle=0.2))
    pool.start()
    try:
        key = ModelKey("classification", str(folder / "models/classification"))
        pool.predict(key, image_bytes(), top_k=1, attention=False)
        (worker,) = pool.workers.values()
        worker.process.wait(20)
        assert pool.workers == {}
    finally:
        pool.close()


def test_too_little_memory_is_a_problem_and_no_defect():
    failure = failure_of(MemoryError())
    assert (failure.status, failure.code) == (503, "no_memory") and failure.hint


def test_all_workers_end_with_the_server(folder, tmp_path):
    with studio_client(studio_config(folder, state=tmp_path)) as client:
        predict(client, "classification")
        predict(client, "detection")
        processes = [one.process for one in client.app.state.studio.predictors.workers.values()]
    assert len(processes) == 2
    assert all(process.returncode == -signal.SIGKILL for process in processes)
    assert not (tmp_path / "predictions").exists()


def test_a_server_that_ends_refuses_the_prediction_that_it_waits_for(folder, tmp_path):
    refused = []

    def ask(server):
        try:
            server.request("POST", "/predictions?model=classification", image_bytes())
        except ApiProblem as problem:
            refused.append((problem.status, problem.body["code"]))

    models = folder / "models"
    with studio_server(tmp_path, "--models", str(models)) as server:
        client = Thread(target=ask, args=(server,))
        client.start()
        while not list(server.state.glob("predictions/worker-*")):
            time.sleep(0.05)
        output = server.stop()
        client.join()
    assert refused == [(503, "busy")]
    assert "Traceback" not in output


def test_a_worker_ends_when_its_server_is_killed(folder):
    code = (
        "import sys; from pathlib import Path;"
        "from visionloop.bin.web.inference.process import ModelKey, Worker;"
        "key = ModelKey('classification', sys.argv[1] + '/models/classification');"
        "worker = Worker(key, Path(sys.argv[1]), 1000); worker.receive(60, 'loading');"
        "print(worker.process.pid, flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid = int(server.stdout.readline())
    server.kill()
    server.wait()
    until = time.monotonic() + SECONDS
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid):
    """Return whether a process runs; one that has ended may wait for its parent."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_images_of_old_predictions_are_dropped(client):
    predictors = client.app.state.studio.predictors
    first = predict(client, "segmentation").json()["images"]["ids"]
    for _ in range(predictors.kept_results):
        last = predict(client, "segmentation").json()["images"]["ids"]
    assert client.get(f"http://127.0.0.1:8470{first}").status_code == 404
    assert client.get(f"http://127.0.0.1:8470{last}").status_code == 200
    kept = [path for path in predictors.folder.iterdir() if path.is_dir()]
    assert len(kept) == predictors.kept_results


def test_an_unknown_image_of_a_prediction_is_not_found(client):
    predicted = predict(client, "classification").json()
    for path in (f"predictions/{predicted['id']}/ids", "predictions/nothing/ids"):
        assert client.get(path).json()["code"] == "not_found"
    assert client.get(f"predictions/{predicted['id']}/..%2f..%2ftoken").status_code == 404
