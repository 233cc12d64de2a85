"""The Docker images, tested without Docker.

The RUN lines of pip are executed in a clean virtual environment.
"""

import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import ROOT, borrow, locked_versions, make_environment, run, skip_without_index

FILES = ("Dockerfile", "Dockerfile.cpu")
HEAVY = r"torch|nvidia|cuda|triton"  # 5 of the 6 GB that the lock installs


def instructions(name):
    """[(keyword, text)] of a Dockerfile, continued lines joined, comments left out."""
    lines = [
        line
        for line in (ROOT / "docker" / name).read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def texts(name, keyword):
    return [text for word, text in instructions(name) if word == keyword]


def copied(name):
    """[(sources, destination)] of the COPY lines."""
    return [(words[:-1], words[-1]) for words in (text.split() for text in texts(name, "COPY"))]


def environment_of(name):
    return dict(
        shlex.split(pair)[0].split("=", 1) for text in texts(name, "ENV") for pair in text.split()
    )


@pytest.fixture(scope="module")
def project_files():
    """Every path that belongs to the project, and the folders above them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("no git checkout: the files of the project are unknown")
    paths = [Path(name) for name in listing.stdout.split("\0") if name]
    return {str(path) for file in paths for path in (file, *file.parents)}


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_belongs_to_the_project_and_reaches_the_engine(name, project_files):
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*" and "**/__pycache__" in rules
    sources = [source for names, _ in copied(name) for source in names]
    assert len(sources) == 11
    for source in sources:
        assert (ROOT / source).exists() and source in project_files
        assert f"!{source}" in rules, f".dockerignore hides {source}"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(sources)


@pytest.mark.parametrize("name", FILES)
def test_the_container_does_not_run_as_root(name):
    (user,) = texts(name, "USER")
    assert user.isdecimal() and int(user) > 0
    made = next(text for text in texts(name, "RUN") if "useradd" in text)
    assert f"--uid {user} " in made
    after = [
        text
        for keyword, text in instructions(name)[instructions(name).index(("USER", user)) :]
        if keyword == "RUN"
    ]
    assert not any("pip" in text or "apt-get" in text for text in after), "what only root may do"


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_code_keeps_the_layer_of_the_lock(name):
    steps = instructions(name)
    lock = steps.index(("COPY", "requirements.lock ./"))
    installed = next(
        i for i, (_, text) in enumerate(steps) if "--requirement requirements.lock" in text
    )
    code = [i for i, (keyword, text) in enumerate(steps) if keyword == "COPY" and i != lock]
    assert lock < installed < min(code)
    assert [
        text
        for _, text in steps[: lock + 1]
        if text.startswith(("engine", "tasks", "bin", "setup.cfg", "README"))
    ] == []
    # the models are asked of our own command, so they come after it
    assert next(i for i, step in enumerate(steps) if step == ("ARG", 'MODELS=""')) > max(code)


@pytest.mark.parametrize("name", FILES)
def test_no_cache_is_left_behind(name):
    assert environment_of(name)["PIP_NO_CACHE_DIR"] == "1"
    for text in texts(name, "RUN"):
        assert ("apt-get" in text) == ("rm -rf /var/lib/apt/lists/*" in text)
        assert ("pip install --no-deps" in text) == ("rm -rf build ./*.egg-info" in text)


def test_both_images_hold_the_same_from_the_code_on():
    cuda, cpu = (instructions(name) for name in FILES)
    first = ("COPY", "setup.cfg pyproject.toml README.md LICENSE NOTICE ./")
    assert cuda[cuda.index(first) :] == cpu[cpu.index(first) :]
    ours = environment_of("Dockerfile")
    assert ours.pop("PATH").startswith("/opt/venv/bin:")
    assert ours == environment_of("Dockerfile.cpu")


def test_the_gpu_image_is_made_for_the_cuda_that_torch_was_built_with():
    base = texts("Dockerfile", "ARG")[0]
    cuda = re.fullmatch(r"CUDA_IMAGE=nvidia/cuda:(\d+\.\d+)\.\d+-runtime-ubuntu24\.04", base)[1]
    assert cuda == ".".join(locked_versions()["nvidia-cuda-runtime"].split(".")[:2])


def words_of(text):
    return json.loads(text) if text.startswith("[") else shlex.split(text)


def test_every_command_of_ours_is_one_that_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = {
        line.split("=")[0].strip()
        for line in setup["options.entry_points"]["console_scripts"].splitlines()
        if line.strip()
    }
    text = "\n".join(
        path.read_text() for path in (ROOT / "docker").iterdir() if path.name != "train.sbatch"
    )
    named = set(re.findall(r"(?<![\w/])visionloop-[a-z-]+", text))
    assert {"visionloop-classification", "visionloop-models"} <= named
    assert named - scripts == set()
    for name in FILES:
        (health,) = texts(name, "HEALTHCHECK")
        assert words_of(health[health.index("CMD ") + 4 :]) == [
            "visionloop-classification",
            "health",
            "--device",
            "cpu",
        ]


def test_the_address_of_cpu_wheels_leaves_the_cuda_libraries_out(tmp_path):
    """pip is a stand-in that prints its arguments."""
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$PIP_EXTRA_INDEX_URL $*"\n')
    (tmp_path / "pip").chmod(0o755)
    line = next(text for text in texts("Dockerfile.cpu", "RUN") if "requirements.lock" in text)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    asked = run(
        "sh", "-c", line, cwd=tmp_path, **path, TORCH_CPU_INDEX="", PIP_EXTRA_INDEX_URL=""
    ).stdout
    assert asked == " install --requirement requirements.lock\n"
    assert (tmp_path / "requirements.lock").read_bytes() == (
        ROOT / "requirements.lock"
    ).read_bytes()

    asked = run(
        "sh",
        "-c",
        line,
        cwd=tmp_path,
        **path,
        TORCH_CPU_INDEX="https://wheels.example/cpu",
        PIP_EXTRA_INDEX_URL="",
    ).stdout
    assert asked == "https://wheels.example/cpu install --requirement requirements.lock\n"
    names = {
        re.split("[= ]", line)[0]
        for line in (tmp_path / "requirements.lock").read_text().splitlines()
    } - {"#"}
    assert {"torch", "torchvision", "numpy"} <= names and fnmatch.filter(names, "nvidia*") == []
    assert {name for name in locked_versions() if name not in names} == {
        name for name in locked_versions() if name.startswith(("nvidia", "cuda", "triton"))
    }


@pytest.mark.slow
def test_the_pip_lines_of_the_cpu_image_make_a_working_installation(tmp_path):
    """In a clean environment, in the order of the file, with its COPY and ENV lines.

    torch and its dependencies are linked from our environment where that has the locked versions:
    pip finds them installed. All of it took 61 s and 6 GB when it was run without that.
    """
    python, site = make_environment(tmp_path / "venv")
    borrowed = borrow(HEAVY, site, tmp_path / "shelf")
    image, empty, executed = tmp_path / "image", tmp_path / "empty", []
    image.mkdir()
    empty.mkdir()
    environment = environment_of("Dockerfile.cpu") | {"TORCH_CPU_INDEX": ""}
    environment |= {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for keyword, text in instructions("Dockerfile.cpu"):
        if keyword == "COPY":
            *sources, _ = text.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(
                        ROOT / source, image / source, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / source, image)
        if keyword == "RUN" and re.search(r"\bpip |\bpython3? ", text):
            process = run("sh", "-c", text, cwd=image, check=False, **environment)
            skip_without_index(process)
            executed.append(process.stdout)
    assert len(executed) == 2
    assert executed[0].count("Requirement already satisfied") >= len(borrowed)
    installed = run(python, "-m", "pip", "freeze", "--all", cwd=empty, **environment).stdout
    pinned = {
        f"{name}=={version}".lower().replace("_", "-")
        for name, version in locked_versions().items()
    }
    assert pinned - set(installed.lower().replace("_", "-").splitlines()) == set()
    assert not (image / "build").exists() and list(image.glob("*.egg-info")) == []

    (command,) = texts("Dockerfile.cpu", "CMD")
    assert "Usage:" in run(*words_of(command), cwd=empty, **environment).stdout
    code = (
        "import torch, visionloop.bin.classification as ours; "
        "print(ours.load_task_class().name, torch.ones(2).sum(), ours.__file__)"
    )
    printed = run(python, "-c", code, cwd=empty, **environment).stdout.split()
    assert printed[:2] == ["classification", "tensor(2.)"] and Path(printed[2]).is_relative_to(site)
