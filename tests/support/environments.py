"""Clean virtual environments: nothing of the checkout or the user's environment leaks in."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = Path(sysconfig.get_path("purelib"))


def run(*command, cwd, check=True, **environment):
    """Run a process to its end; fail with its whole output.

    environment: variables besides those of this process, without its PYTHON* ones.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )
    assert not check or process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process


def make_environment(folder, *options):
    """The python of a new virtual environment, and its folder of packages."""
    run(sys.executable, "-m", "venv", *options, folder, cwd=folder.parent)
    python = folder / "bin/python"
    return python, Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
        ).stdout.strip()
    )


def skip_without_index(process):
    """Skip the test when pip found no package index; any other failure is one."""
    if process.returncode and "(from versions: none)" in process.stderr:
        pytest.skip("no package index can be reached")
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"


def locked_versions():
    """{distribution: version} of requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(
        re.match(r"([^=\s]+)==(\S+)", line).groups()
        for line in lines
        if line and not line.startswith("#")
    )


def borrow(pattern, site, shelf):
    """Make our copies of the locked distributions that match `pattern` visible in `site`.

    They are linked from the folder `shelf`. One that we have in another version, or not at all, is
    left out. Returns their names.
    """
    shelf.mkdir()
    borrowed = []
    for name, version in locked_versions().items():
        if not re.match(pattern, name) or not _is_ours(name, version):
            continue
        for top in {Path(file).parts[0] for file in metadata.distribution(name).files} - {
            "..",
            "__pycache__",
        }:
            if not (shelf / top).exists():
                (shelf / top).symlink_to(OURS / top)
        borrowed.append(name)
    (site / "borrowed.pth").write_text(f"{shelf}\n")
    return borrowed


def _is_ours(name, version):
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return distribution.version == version and distribution.locate_file("") == OURS
