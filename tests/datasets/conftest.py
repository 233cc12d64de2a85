import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of a real dataset by name, or skip the test without it.

    It is searched in VISIONLOOP_DATA, then beside the repository.
    """

    def folder_of(name):
        folder = (
            Path(os.environ.get("VISIONLOOP_DATA", REPOSITORY.parent / "shared" / "data")) / name
        )
        if not folder.is_dir():
            pytest.skip(f"no real data {name} here (set VISIONLOOP_DATA)")
        return folder

    return folder_of


@pytest.fixture
def colors():
    """A smooth image without symmetry: uint8 [48, 64, 3]."""
    y, x = np.mgrid[:48, :64]
    return np.stack([y * 5, x * 3, (x + y) * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def class_tree(tmp_path):
    """{relative path: size in pixels} -> a folder of such images, each of its own color."""

    def build(names, root="data"):
        for number, name in enumerate(names):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = np.full((10, 12, 3), 40 + number * 7 % 200, dtype=np.uint8)
            Image.fromarray(shade).save(
                path, format="PNG" if path.suffix.lower() == ".png" else "JPEG"
            )
        return tmp_path / root

    return build
