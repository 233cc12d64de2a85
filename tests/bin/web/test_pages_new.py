"""The pages of a new training, models and data in Chromium."""

import re
import shlex

import pytest
from playwright.sync_api import expect
from studio_server import browser_page, studio_server, wait_until_drawn

from visionloop.datasets.synthetic.writers import WRITERS

pytestmark = pytest.mark.browser
TASKS = list(WRITERS)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(name="studio", scope="module")
def studio_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    for number, (task, write) in enumerate(WRITERS.items()):
        data = folder / "data" / f"small-{task}"
        data.mkdir(parents=True)
        write(data, number, images={"train": 8, "val": 4})
    no_validation = folder / "data" / HOSTILE
    no_validation.mkdir()
    WRITERS["classification"](no_validation, 9, images={"train": 8})
    with studio_server(folder) as studio:
        yield studio


def choose(page, studio, task):
    """Choose task, data and the model tiny; the settings are shown at the end."""
    page.goto(f"{studio.url}/new")
    page.locator(f'.choice:has([src$="/example-{task}.svg"])').click()
    page.get_by_label(f"small-{task}").check()
    page.get_by_role("button", name="Go on to the model").click()
    page.locator('input[name="model"][value="tiny"]').check()
    page.get_by_role("button", name="Go on to the settings").click()
    page.locator(".setting").first.wait_for()


def command_of(page, expected="train"):
    """Return the words of the command that is shown, as soon as it has the expected ones."""
    shown = page.locator(".command-bar pre").first
    expect(shown).to_contain_text(expected)
    return shlex.split(shown.inner_text())


@pytest.mark.parametrize("task", TASKS)
def test_four_steps_lead_to_the_command_of_the_api(studio, task):
    with browser_page(studio) as page:
        choose(page, studio, task)
        page.locator("[data-setting=batch_size]").fill("4")
        command = command_of(page, "--batch-size 4")

    settings = {"data": str(studio.data / f"small-{task}"), "model": "tiny", "batch_size": 4}
    preview = studio.post("/jobs/preview", {"task": task, "settings": settings})
    assert command == preview["command"]
    assert preview["problems"] == []


def test_a_wrong_value_is_marked_and_keeps_the_training_from_starting(studio):
    with browser_page(studio) as page:
        choose(page, studio, "classification")
        start = page.get_by_role("button", name="Start training")
        rate = page.locator("[data-setting=lr]")
        rate.fill("fast")
        page.locator(".command-bar .error-box").wait_for()
        expect(rate).to_have_attribute("aria-invalid", "true")
        expect(start).to_be_disabled()

        page.get_by_role("button", name="Go to lr").click()
        expect(rate).to_be_focused()
        rate.fill("1e-3")
        page.locator(".command-bar .error-box").wait_for(state="detached")
        expect(start).to_be_enabled()
        assert command_of(page, "--lr")[-2:] == ["--lr", "0.001"]


def test_values_of_a_preset_are_shown_and_only_changed_ones_are_sent(studio):
    with browser_page(studio) as page:
        choose(page, studio, "classification")
        preset, epochs = (page.locator(f"[data-setting={name}]") for name in ("preset", "epochs"))
        expect(epochs).to_have_attribute("placeholder", "100")
        preset.select_option("quick")
        expect(epochs).to_have_attribute("placeholder", "3")
        assert command_of(page, "--preset")[-2:] == ["--preset", "quick"]
        preset.select_option("")
        expect(page.locator(".command-bar pre").first).not_to_contain_text("--preset")
        assert command_of(page)[-2:] == ["--model", "tiny"]


def test_choices_survive_a_reload_and_go_with_start_over(studio):
    with browser_page(studio) as page:
        choose(page, studio, "detection")
        page.locator("[data-setting=seed]").fill("7")
        page.reload()
        page.locator(".setting").first.wait_for()
        expect(page.locator("[data-setting=seed]")).to_have_value("7")
        assert command_of(page, "--seed")[-2:] == ["--seed", "7"]
        page.get_by_role("button", name="Start over").click()
        page.locator(".choices.tasks").wait_for()
        expect(page.locator(".command-bar > .hint")).to_be_visible()  # it says what is missing
        expect(page.locator(".command-bar pre")).to_be_hidden()


def test_a_job_fills_in_the_settings_that_it_was_created_with(studio):
    settings = {
        "data": str(studio.data / "small-segmentation"),
        "model": "tiny",
        "lr": 0.003,
        "ema": False,
        "hflip": True,
    }
    body = {"task": "segmentation", "settings": settings, "note": "again", "start": False}
    job = studio.post("/jobs", body)
    with browser_page(studio, expected_errors="404") as page:
        page.goto(f"{studio.url}/new?job={job['id']}")
        page.locator(".setting").first.wait_for()
        again = command_of(page)
        expect(page.locator("[data-setting=note]")).to_have_value("again")
        expect(page).to_have_url(f"{studio.url}/new")

    output = again.index("--output") + 1
    assert again[output] != job["run"]
    assert again[:output] + again[output + 1 :] == [
        word for word in job["command"] if word != job["run"]
    ]


def test_the_keyboard_alone_reaches_the_settings(studio):
    with browser_page(studio) as page:
        page.goto(f"{studio.url}/new")
        page.locator(".choice").first.focus()
        page.keyboard.press("Enter")
        page.locator("input[name=data]").first.wait_for()
        expect(page.locator(".step > h2")).to_be_focused()
        page.get_by_label("small-classification").focus()
        page.keyboard.press("Space")
        onward = page.get_by_role("button", name="Go on to the model")
        expect(onward).to_be_enabled()  # a press does not wait for it
        onward.press("Enter")
        page.locator('input[name="model"][value="tiny"]').focus()
        page.keyboard.press("Space")
        onward = page.get_by_role("button", name="Go on to the settings")
        expect(onward).to_be_enabled()
        onward.press("Enter")
        page.locator(".setting").first.wait_for()
        expect(page.locator(":focus")).to_have_text("Settings")


def test_hostile_names_are_text_and_data_without_validation_holds_images_out(studio):
    with browser_page(studio) as page:
        page.goto(f"{studio.url}/data")
        card = page.locator(".choice", has_text=HOSTILE)
        card.first.wait_for()
        assert page.locator("main img").count() == 0
        card.get_by_role("link").click()
        page.locator("input[name=model]").first.wait_for()
        page.locator('input[name="model"][value="tiny"]').check()
        command = command_of(page, "--model tiny")
    assert command[command.index("--data") + 1] == str(studio.data / HOSTILE)
    assert command[command.index("--val-split") + 1] == "0.2"


def test_a_path_outside_the_roots_is_refused_at_its_field(studio):
    with browser_page(studio, expected_errors="403") as page:
        page.goto(f"{studio.url}/new?task=detection")
        path = page.get_by_label("Path of the data")
        path.fill("/etc")
        path.press("Enter")
        expect(page.locator(".field .error:visible")).to_contain_text("outside")
        expect(path).to_have_attribute("aria-invalid", "true")


@pytest.mark.parametrize("launcher", ["torchrun", "docker", "slurm", "kubernetes"])
def test_each_launcher_shows_its_own_command(studio, launcher):
    with browser_page(studio, expected_errors="422") as page:
        choose(page, studio, "classification")
        page.locator(f'input[name=launcher][value="{launcher}"]').check()
        if launcher == "kubernetes":
            page.locator(".command-bar .error-box").wait_for()
            page.get_by_label("Volume claims").fill(f"all:{studio.data.parent}")
            page.locator(".command-bar .error-box").wait_for(state="detached")
            page.locator(".command-bar details").first.click()
            manifest = page.locator(".command-bar details pre")
            expect(manifest).to_contain_text("kind: Job", use_inner_text=True)
        program = {"torchrun": "torch.distributed.run", "kubernetes": "kubectl", "slurm": "sbatch"}
        command_of(page, program.get(launcher, launcher))


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("path", ["new", "models", "data"])
def test_pages_fit_a_phone_in_both_languages(studio, path, language):
    with browser_page(studio, width=380, height=800, dark=True, language=language) as page:
        page.goto(f"{studio.url}/{path}")
        page.locator(".choice, .model-table td").first.wait_for()
        wait_until_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        text = page.locator("main").inner_text()
    assert bool(re.search("[가-힣]", text)) == (language == "ko")
    assert not re.search(r"\b(new|data|models|model|layout)\.[a-z]+\.?[a-z]*\b", text), text


def test_models_are_filtered_and_lead_to_a_training(studio):
    with browser_page(studio) as page:
        page.goto(f"{studio.url}/models")
        rows = page.locator(".model-table tbody tr")
        wait_until_drawn(page)
        everything = rows.count()
        page.get_by_label("Task").select_option("detection")
        page.get_by_label("Search").fill("nano")
        expect(rows.filter(has_not_text=re.compile("nano", re.IGNORECASE))).to_have_count(0)
        assert 0 < rows.count() < everything
        page.get_by_label("Search").fill("nothing like it")
        page.locator(".empty").wait_for()
        page.get_by_label("Search").fill("")
        rows.first.get_by_role("link", name="Train from it").click()
        page.locator("input[name=data]").first.wait_for()
        expect(page.locator(".steps li.done")).to_have_count(2)
