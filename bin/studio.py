"""Serve the studio: a page and an API to start, watch, compare and try runs on this machine.

    bin/studio.py                                 prints a link to open in a browser
    bin/studio.py --data images/ --runs runs/     folders that the page may use
    ssh -L 8470:127.0.0.1:8470 SERVER             reach a server on another machine

Ctrl-C ends the server, jobs go on. See bin/web/README.md.
"""

from pathlib import Path

import click

from visionloop.bin.commands.cli import run_commands
from visionloop.bin.commands.options import PATH, traceback_option
from visionloop.bin.web.config import StudioConfig
from visionloop.engine.errors import UserError


@click.command(
    "studio",
    help="Serve a page and an API to start, watch, compare and try runs.",
    context_settings={"max_content_width": 120, "help_option_names": ["--help"]},
)
@click.option(
    "--data",
    type=PATH,
    multiple=True,
    help="Folder below which data sets may be named; give it several times for several folders "
    "(default: the current folder)",
)
@click.option(
    "--runs",
    type=PATH,
    multiple=True,
    help="Folder with runs; new ones are written to the first (default: runs)",
)
@click.option(
    "--models",
    type=PATH,
    multiple=True,
    help="Folder below which models may be named (default: the folders with runs alone)",
)
@click.option(
    "--augment-file",
    "augment",
    metavar="FILE.py:NAME",
    multiple=True,
    help="Function of yours that jobs may use as --augment; give it several times for several "
    "functions (default: none, the page starts no code of yours)",
)
@click.option(
    "--state",
    type=PATH,
    help="Folder of the queue, the token and the logs of jobs "
    "(default: ~/.local/state/visionloop/studio)",
)
@click.option("--host", default=StudioConfig.host, show_default=True, help="Address to listen at")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=StudioConfig.port,
    show_default=True,
    help="Port to listen at; 0: any free one",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    help="Name under which browsers reach this server, beside --host and localhost",
)
@click.option("--certificate", type=PATH, help="PEM file with the TLS certificate")
@click.option("--private-key", type=PATH, help="PEM file with the key of the certificate")
@click.option(
    "--insecure-http",
    is_flag=True,
    help="Serve another address than this machine's own without TLS",
)
@traceback_option
def command(
    data: tuple[str, ...],
    runs: tuple[str, ...],
    models: tuple[str, ...],
    augment: tuple[str, ...],
    state: str | None,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    certificate: str | None,
    private_key: str | None,
    insecure_http: bool,
) -> None:
    """Run the server."""
    try:
        from visionloop.bin.web.serve import link_host, run_studio, state_folder
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise UserError(
            f"the studio needs {error.name}: pip install 'visionloop[studio]'", field="extra"
        ) from None
    if (certificate is None) != (private_key is None):
        raise UserError("--certificate and --private-key belong together", field="certificate")
    names = (*StudioConfig.allowed_hosts, link_host(host))
    run_folders = folders(runs or ("runs",))
    run_studio(
        StudioConfig(
            data=existing_folders(data or (".",), "--data"),
            runs=run_folders,
            models=(*existing_folders(models, "--models"), *run_folders),
            augment=tuple(map(existing_function, augment)),
            state=Path(state).resolve() if state else state_folder(),
            host=host,
            port=port,
            allowed_hosts=tuple(dict.fromkeys(name.lower() for name in (*names, *allowed_hosts))),
            certificate=existing_file(certificate, "--certificate"),
            private_key=existing_file(private_key, "--private-key"),
            insecure=insecure_http,
        )
    )


def folders(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return folders with links resolved; they need not exist."""
    return tuple(Path(name).expanduser().resolve() for name in names)


def existing_folders(names: tuple[str, ...], flag: str) -> tuple[Path, ...]:
    """Return folders with links resolved. Raises UserError for one that does not exist."""
    paths = folders(names)
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{flag} {path}: no such folder", field=flag[2:], file=str(path))
    return paths


def existing_file(name: str | None, flag: str) -> Path | None:
    """Return a file. Raises UserError if it does not exist."""
    if name is not None and not Path(name).is_file():
        raise UserError(f"{flag} {name}: no such file", field=flag[2:], file=name)
    return None if name is None else Path(name).resolve()


def existing_function(spec: str) -> str:
    """Return FILE.py:NAME with the path of the file. Raises UserError if it does not exist."""
    file, _, name = spec.rpartition(":")
    if Path(file).suffix != ".py" or not name.isidentifier():
        why = "expected FILE.py:NAME, as in augment.py:augment"
        raise UserError(f"--augment-file {spec}: {why}", field="augment_file")
    return f"{existing_file(file, '--augment-file')}:{name}"


def main() -> None:
    """Run the command line."""
    run_commands(command)


if __name__ == "__main__":
    main()
