"""The installed distribution: only the product, next to Hugging Face `datasets`."""

import configparser
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from environments import OURS, make_environment, run, skip_without_index

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "tasks", "datasets", "metrics", "bin")


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def lines(setup, section, key):
    return [line.strip() for line in setup[section][key].splitlines() if line.strip()]


def console_scripts(setup):
    """{command: module}."""
    pairs = [line.split("=") for line in lines(setup, "options.entry_points", "console_scripts")]
    return {name.strip(): target.strip().removesuffix(":main") for name, target in pairs}


def test_every_package_of_the_five_folders_is_listed(setup):
    packages = {
        "visionloop." + ".".join(path.relative_to(ROOT).parent.parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert set(lines(setup, "options", "packages")) == packages
    assert set(lines(setup, "options", "package_dir")) == {
        f"visionloop.{folder} = {folder}" for folder in FOLDERS
    }


def test_every_package_has_an_init_and_the_namespace_has_none(setup):
    listed = [name.split(".")[1:] for name in lines(setup, "options", "packages")]
    assert [parts for parts in listed if not ROOT.joinpath(*parts, "__init__.py").is_file()] == []
    assert not (ROOT / "__init__.py").exists()


def test_every_launcher_is_a_console_script(setup):
    launchers = {path.stem for path in (ROOT / "bin").glob("*.py")} - {"__init__"}
    expected = {
        f"visionloop-{name.replace('_', '-')}": f"visionloop.bin.{name}" for name in launchers
    }
    assert console_scripts(setup) == expected


def test_the_lock_holds_every_dependency_and_the_dev_extra(setup):
    pinned = [
        line.split("==")[0]
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if not line.startswith("#")
    ]
    locked = {name.lower().replace("_", "-") for name in pinned}
    requirements = lines(setup, "options", "install_requires") + lines(
        setup, "options.extras_require", "dev"
    )
    assert {requirement.split(">=")[0].lower() for requirement in requirements} - locked == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy, so that an old build/ cannot put deleted files into it."""
    folder = tmp_path_factory.mktemp("wheel")
    # a copy names what a clone would hold; everything else in the checkout is data, runs and
    # environments
    source = folder / "source"
    for name in (*FOLDERS, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    run(
        sys.executable,
        "-P",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        source,
        cwd=folder,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_product_only(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    markers = {ROOT / folder / "py.typed" for folder in FOLDERS}
    page = {
        path
        for kind in ("css", "html", "js", "json")
        for path in (ROOT / "bin/reports").glob(f"*.{kind}")
    }
    page |= {path for path in (ROOT / "bin/web/static").rglob("*") if path.is_file()}
    data = {*(ROOT / "tasks").glob("*/models.toml"), *(ROOT / "bin/launches").glob("*.sbatch")}
    assert names == {
        f"visionloop/{path.relative_to(ROOT)}" for path in modules | markers | page | data
    }


def test_the_wheel_carries_license_and_notice(wheel):
    names = {
        name.split("/")[-1]
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/licenses/" in name
    }
    assert names == {"LICENSE", "NOTICE"}


@pytest.fixture(scope="module")
def clean_environment(wheel, setup, tmp_path_factory):
    """Return the bin folder of a new environment: the wheel, Hugging Face datasets, our torch."""
    folder = tmp_path_factory.mktemp("clean")
    python, site = make_environment(folder / "venv", "--without-pip")
    pip = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "--python",
        python,
        "--disable-pip-version-check",
        "--no-input",
    ]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # a path in a .pth file adds that folder to sys.path and does not read the .pth files in it: our
    # editable install stays off
    (site / "borrowed.pth").write_text(f"{OURS}\n")
    (requirement,) = (
        line
        for line in lines(setup, "options.extras_require", "compare")
        if line.startswith("datasets")
    )
    skip_without_index(
        run(*pip, "install", "--timeout", 30, "--retries", 1, requirement, cwd=folder, check=False)
    )
    return python.parent


@pytest.mark.slow
def test_the_installed_wheel_and_hugging_face_datasets_live_side_by_side(
    clean_environment, tmp_path
):
    code = """
import sys
from pathlib import Path
import datasets, visionloop.datasets, visionloop.engine.task
from transformers.utils.import_utils import is_datasets_available
site = Path(sys.prefix).resolve()
for module in (datasets, visionloop.datasets, visionloop.engine.task):
    assert site in Path(module.__file__).resolve().parents, module.__file__
assert datasets is not visionloop.datasets and hasattr(datasets, "load_dataset")
assert is_datasets_available()
"""
    run(clean_environment / "python", "-c", code, cwd=tmp_path)


@pytest.mark.slow
def test_every_installed_command_shows_its_help_from_a_foreign_folder(
    clean_environment, setup, tmp_path
):
    for name in console_scripts(setup):
        assert "Usage:" in run(clean_environment / name, "--help", cwd=tmp_path).stdout
