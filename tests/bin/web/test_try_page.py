"""The page that tries a model: each kind of result, each way to give an image, and errors."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from predict_runs import write_model, write_sure_model
from pycocotools import mask as coco_mask
from studio_server import browser_page, studio_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TASKS = ("classification", "detection", "segmentation", "super_resolution")
HOSTILE = "<img src=x onerror=alert(1)>"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SIZE_WH = (90, 60)
LOADING = 120  # seconds for a model, on a loaded machine
# whether a canvas shows anything, by a copy that is meant to be read
IS_DRAWN = """canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data
        .some((value, i) => i % 4 === 3 && value > 0);
}"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A server with a model of each task; one class has a hostile name."""
    folder = tmp_path_factory.mktemp("studio")
    models = folder / "models"
    models.mkdir()
    for task in TASKS:
        write_model(task, folder / task)
        shutil.move(folder / task / "model", models / task)
    for task in ("instance_segmentation", "panoptic_segmentation"):
        shutil.move(write_sure_model(task, folder / task), models / task)
    config_file = models / "classification/config.json"
    config = json.loads(config_file.read_text())
    config["id2label"]["0"] = HOSTILE
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    config_file.write_text(json.dumps(config))
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE_WH[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "notes.txt").write_text("no image")
    with studio_server(folder, "--models", str(models)) as server:
        server.folder = folder
        yield server


def open_trial(page, studio, task):
    page.goto(f"{studio.url}/try?model={studio.folder / 'models' / task}")
    page.get_by_label("Model").wait_for()


def predict(page, studio, task):
    """Try the image with a model and wait for the result."""
    open_trial(page, studio, task)
    page.locator("input[type=file]").set_input_files(studio.folder / "image.png")
    page.locator(".try-answer").wait_for(timeout=1000 * LOADING)


def shown_json(page):
    """Open the prediction as JSON and return it."""
    page.get_by_text("Prediction as JSON").click()
    page.locator(".try-answer pre").wait_for()
    return json.loads(page.locator(".try-answer pre").inner_text())


def wait_for_drawing(page, is_drawn):
    """Wait until the canvas of a result shows something, or nothing."""
    script = f"isDrawn => ({IS_DRAWN})(document.querySelector('.stage canvas')) === isDrawn"
    page.wait_for_function(script, arg=is_drawn)


def test_classes_are_bars_and_the_attention_can_be_shown(studio):
    with browser_page(studio) as page:
        predict(page, studio, "classification")
        labels = page.locator(".try-bars .try-label")
        expect(labels.filter(has_text=re.compile(f"^{re.escape(HOSTILE)}$"))).to_have_count(1)
        page.get_by_label("Best classes").select_option("3")
        page.wait_for_function("document.querySelectorAll('.try-bars li').length <= 3")
        page.get_by_label("Show the attention").check()
        page.get_by_role("img", name="attention").wait_for()
        prediction = shown_json(page)
        assert prediction["file"] == "image.png"
        assert prediction["label"] == labels.first.inner_text()


def test_a_slider_filters_boxes_by_their_score(studio):
    with browser_page(studio) as page:
        predict(page, studio, "detection")
        slider, boxes = page.get_by_label("Lowest score"), page.locator(".try-list li")
        slider.fill("1")
        expect(page.locator(".try-controls output")).to_have_text("1 %")
        assert boxes.count() > 0
        wait_for_drawing(page, True)
        scores = [float(text.split("\n")[-1].rstrip(" %")) for text in boxes.all_inner_texts()]
        assert scores == sorted(scores, reverse=True)
        slider.fill("100")
        page.get_by_text("No box has this score").wait_for()
        expect(boxes).to_have_count(0)
        wait_for_drawing(page, False)


def test_classes_of_a_mask_can_be_hidden_and_the_mask_faded(studio):
    with browser_page(studio) as page:
        predict(page, studio, "segmentation")
        wait_for_drawing(page, True)
        page.get_by_label("Opacity").fill("25")
        expect(page.locator(".stage canvas")).to_have_css("opacity", "0.25")
        for button in page.locator(".legend button").all():
            button.press("Enter")
            expect(button).to_have_attribute("aria-pressed", "false")
        wait_for_drawing(page, False)


# colors and opacities of a canvas, {pixel of 4 bytes: number of pixels}
COUNTED = """canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const counts = {};
    for (const pixel of new Uint32Array(data.buffer)) counts[pixel] = (counts[pixel] || 0) + 1;
    return counts;
}"""


def counted(canvas):
    """Return {(color, opacity 0 to 255): number of pixels}."""
    pixels = {int(pixel): number for pixel, number in canvas.evaluate(COUNTED).items()}
    return {(pixel & 0xFFFFFF, pixel >> 24): number for pixel, number in pixels.items()}


def test_a_slider_filters_objects_and_pointing_at_one_shows_its_whole_mask(studio):
    with browser_page(studio) as page:
        predict(page, studio, "instance_segmentation")
        slider, rows = page.get_by_label("Lowest score"), page.locator(".try-list li")
        canvas = page.locator(".stage canvas")
        segments = shown_json(page)["segments"]
        slider.fill("1")
        expect(rows).to_have_count(len(segments))
        page.get_by_text(f"{len(segments)} of {len(segments)} objects").wait_for()
        numbers = page.locator(".legend small").all_inner_texts()
        assert sum(map(int, numbers)) == len(segments) > 1

        rows.last.hover()
        expect(rows.last).to_have_class("marked")
        opaque = {key: number for key, number in counted(canvas).items() if key[1] == 255}
        assert list(opaque.values()) == [segments[-1]["area"]]  # though it is below all others
        page.get_by_label("Opacity").hover()
        expect(rows.last).to_have_class("")
        assert {opacity for _, opacity in counted(canvas)} <= {0, 255}

        lowest = 1 + int(100 * segments[1]["score"])
        slider.fill(str(lowest))
        expect(rows).to_have_count(sum(100 * one["score"] >= lowest for one in segments))
        slider.fill("100")
        page.get_by_text("No object has this score").wait_for()
        wait_for_drawing(page, False)


def test_run_lengths_are_those_of_the_masks_at_every_size(studio):
    generator = np.random.default_rng(0)
    compare = """async (cases) => {
        const { runsOf } = await import("/static/pages/try_run_lengths.js");
        return cases.map(([mask, map]) => runsOf(mask, map));
    }"""
    shapes = [(7, 5), (1, 1), (40, 3), (60, 90)]
    masks = [generator.random(shape) < share for shape in shapes for share in (0, 0.5, 0.99, 1)]
    cases = [(mask, scale) for mask in masks for scale in (1, 2 / 3, 1 / 2)]

    def size_of(mask, scale):
        return [max(1, round(side * scale)) for side in mask.shape]

    given = []
    for mask, scale in cases:
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        height, width = size_of(mask, scale)
        encoded = {"size": list(mask.shape), "counts": rle["counts"].decode()}
        given.append([encoded, {"height": height, "width": width}])
    with browser_page(studio) as page:
        for (mask, scale), runs in zip(cases, page.evaluate(compare, given), strict=True):
            height, width = size_of(mask, scale)
            drawn = np.zeros(height * width, dtype=bool)
            for start, end in zip(runs[::2], runs[1::2], strict=True):
                drawn[int(start) : int(end)] = True  # a start may be -0
            centers = [
                ((np.arange(side) + 0.5) * full / side).astype(int)
                for side, full in zip((height, width), mask.shape, strict=True)
            ]
            assert (mask[np.ix_(*centers)] == drawn.reshape(width, height).T).all()


def test_segments_of_a_panoptic_prediction_are_drawn_and_hidden_by_class(studio):
    with browser_page(studio) as page:
        predict(page, studio, "panoptic_segmentation")
        canvas, buttons = page.locator(".stage canvas"), page.locator(".legend button")
        segments = shown_json(page)["segments"]
        drawn = {key: number for key, number in counted(canvas).items() if key[1]}
        assert sorted(drawn.values()) == sorted(one["area"] for one in segments) != []
        page.get_by_label("Opacity").fill("25")
        expect(canvas).to_have_css("opacity", "0.25")
        for button in buttons.all():
            button.press("Enter")
            expect(button).to_have_attribute("aria-pressed", "false")
        wait_for_drawing(page, False)
        expect(page.locator(".try-list li")).to_have_count(0)


def test_the_keyboard_moves_the_border_between_input_and_result(studio):
    with browser_page(studio) as page:
        predict(page, studio, "super_resolution")
        border = page.get_by_label("Border between input and result")
        border.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".stage")).to_have_attribute("style", re.compile("--split: ?99%"))
        with page.expect_download() as download:
            page.get_by_text("Download the result").click()
        with Image.open(download.value.path()) as result:
            scale = result.width // SIZE_WH[0]
            assert result.size == (scale * SIZE_WH[0], scale * SIZE_WH[1]) and scale > 1
        assert download.value.suggested_filename == f"image-x{scale}.png"


def test_a_wait_has_a_progress_bar(studio):
    with browser_page(studio) as page:
        open_trial(page, studio, "classification")
        waiting = []
        page.route(
            "**/predictions?*", lambda route: waiting.append(route)
        )  # as with a slow network
        page.locator("input[type=file]").set_input_files(studio.folder / "image.png")
        page.get_by_role("progressbar").wait_for()
        page.get_by_text("Loading the model").wait_for()
        for _ in range(10 * LOADING):  # the page shows the wait before it asks
            if waiting:
                break
            page.wait_for_timeout(100)
        waiting[0].continue_()
        page.locator(".try-answer").wait_for(timeout=1000 * LOADING)
        expect(page.get_by_role("progressbar")).to_have_count(0)


def test_another_model_predicts_the_same_image(studio):
    with browser_page(studio) as page:
        predict(page, studio, "classification")
        page.get_by_label("Model").select_option(label="detection")
        page.get_by_label("Lowest score").wait_for(timeout=1000 * LOADING)
        expect(page).to_have_url(re.compile("detection$"))


def test_the_camera_takes_a_picture(studio):
    with browser_page(studio, flags=CAMERA) as page:
        open_trial(page, studio, "classification")
        page.get_by_role("button", name="Camera").click()
        page.get_by_role("button", name="Take a picture").click()
        page.locator(".try-answer").wait_for(timeout=1000 * LOADING)
        expect(page.locator(".try-facts")).to_contain_text("640 x 480")
        expect(page.locator("video")).to_have_count(0)


def test_a_page_without_a_camera_says_what_to_do(studio):
    with browser_page(studio) as page:
        # as on an address that the browser does not trust
        page.add_init_script("delete Navigator.prototype.mediaDevices")
        open_trial(page, studio, "classification")
        page.get_by_role("button", name="Camera").click()
        expect(page.get_by_role("alert")).to_contain_text("--certificate")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(studio, event):
    give = """async ([event, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.querySelector(".try-drop").dispatchEvent(event === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    }"""
    image = base64.b64encode((studio.folder / "image.png").read_bytes()).decode()
    with browser_page(studio) as page:
        open_trial(page, studio, "classification")
        page.evaluate(give, [event, image])
        page.locator(".try-answer").wait_for(timeout=1000 * LOADING)


def test_a_file_that_is_no_image_is_an_error_that_says_so(studio):
    with browser_page(studio, expected_errors="status of 422") as page:
        open_trial(page, studio, "classification")
        page.locator("input[type=file]").set_input_files(studio.folder / "notes.txt")
        expect(page.get_by_role("alert")).to_contain_text("no image")
        damaged = {"name": "damaged.png", "mimeType": "image/png", "buffer": b"\x89PNG no image"}
        page.locator("input[type=file]").set_input_files(files=[damaged])
        page.get_by_text("expected an image of JPEG, PNG, WEBP, BMP").wait_for(
            timeout=1000 * LOADING
        )
        expect(page.get_by_role("alert")).to_contain_text("save it as PNG")
        assert page.get_by_role("button", name="Try again").count() == 0


@pytest.mark.parametrize("language", ["en", "ko-KR"])
@pytest.mark.parametrize("task", ["classification", "instance_segmentation"])
def test_nothing_of_a_result_is_wider_than_a_phone(studio, task, language):
    with browser_page(studio, width=380, language=language) as page:
        page.goto(f"{studio.url}/try?model={studio.folder / 'models' / task}")
        page.locator("input[type=file]").set_input_files(studio.folder / "image.png")
        page.locator(".try-answer").wait_for(timeout=1000 * LOADING)
        page.locator("summary").click()
        page.locator(".try-answer pre").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        assert "try." not in page.locator("main").inner_text()


def test_a_server_without_models_leads_to_a_training(tmp_path):
    with studio_server(tmp_path) as studio, browser_page(studio) as page:
        page.goto(f"{studio.url}/try")
        link = page.get_by_role("link", name="Train a model")
        expect(link).to_have_attribute("href", "/new")
