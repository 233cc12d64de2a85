"""The web application: endpoints, pages, and the checks before them."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from visionloop.bin.web.api import (
    checks,
    comparisons,
    datasets,
    events,
    jobs,
    predictions,
    run_files,
    runs,
    session,
    tables,
)
from visionloop.bin.web.config import API, StudioConfig
from visionloop.bin.web.problems import (
    RESPONSES,
    Problem,
    describe_problems,
    install_problem_handlers,
)
from visionloop.bin.web.security.guard import DOCS, Guard
from visionloop.bin.web.studio import Studio

STATIC = Path(__file__).parent / "static"
COMPONENTS = Path(__file__).parents[1] / "reports"  # charts, tables and images of the report
PAGE_FILES = (".js", ".css", ".svg", ".png", ".webmanifest")
ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    jobs.router,
    tables.router,
    datasets.router,
    checks.router,
    predictions.router,
    runs.router,
    run_files.router,
    comparisons.router,
    events.router,
)


class Pages(StaticFiles):
    """Files of the pages, no other file of the folder. A browser asks each time for changes."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path.endswith(PAGE_FILES) else ("", None)

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(config: StudioConfig, token: str) -> FastAPI:
    """Return the application of a server.

    Args:
        config: of the server; its folders exist.
        token: of the installation, which is exchanged for the cookie.
    """
    studio = Studio(config, token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.start()
        try:
            yield
        finally:
            studio.close()

    app = FastAPI(
        title="visionloop studio",
        version=metadata.version("visionloop"),
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=RESPONSES,
    )
    app.state.studio = studio
    install_problem_handlers(app)
    describe_problems(app)
    for router in ROUTERS:
        app.include_router(router, prefix=API)
    app.mount("/components", Pages(directory=COMPONENTS), name="components")
    app.mount("/static", Pages(directory=STATIC), name="static")

    # the page's own script reads the path, so that every address can be opened and sent
    @app.get("/{path:path}", include_in_schema=False)
    async def page(request: Request, path: str) -> Response:
        if request.url.path.startswith("/api/") and request.url.path != DOCS:
            raise Problem(404, "not_found", f"{request.url.path}: no such endpoint")
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.add_middleware(Guard, config=config, token=token)
    return app
