"""A client of the studio's app in this process."""

from contextlib import contextmanager

from starlette.testclient import TestClient

from visionloop.bin.web.app import create_app
from visionloop.bin.web.config import Limits, StudioConfig

TOKEN = "a token of a test"
BASE = "http://127.0.0.1:8470/api/v1"


def studio_config(folder, **changes):
    """Settings whose roots are data/, runs/ and models/ below a folder, which are made."""
    roots = {name: (folder / name,) for name in ("data", "runs", "models")}
    for (root,) in roots.values():
        root.mkdir(parents=True, exist_ok=True)
    limits = Limits(**changes.pop("limits", {}))
    return StudioConfig(**roots | {"state": folder / "state", "limits": limits} | changes)


@contextmanager
def studio_client(config):
    """A signed-in client of a started app; paths are relative to /api/v1/."""
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Visionloop": "1"}
    with TestClient(create_app(config, TOKEN), base_url=BASE, headers=headers) as client:
        yield client
