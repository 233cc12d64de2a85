"""`visionloop-studio`: one server in this process, until Ctrl-C."""

import errno
import fcntl
import ipaddress
import logging
import os
import re
import socket
import ssl
from pathlib import Path
from typing import IO

import uvicorn

from visionloop.bin.web.app import create_app
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.security.token import read_or_make_token
from visionloop.engine.errors import UserError

CLOSING_SECONDS = 3
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # ends of lines, colours of terminals


def run_studio(config: StudioConfig) -> None:
    """Serve until Ctrl-C or SIGTERM; jobs go on.

    Raises UserError for an address that cannot be used, or that would be reached without TLS.
    """
    require_safe_address(config)
    require_certificate(config)
    try:
        config.runs[0].mkdir(parents=True, exist_ok=True)
        token = read_or_make_token(config.state / "token")
        lock = hold_state(config.state)
    except OSError as error:
        hint = "the server writes to --state and to the first --runs"
        raise UserError(f"{error.filename}: {error.strerror}", field="state", hint=hint) from None
    write_log_in_lines()
    listener = listen(config.host, config.port)
    app = create_app(config, token)
    server = StudioServer(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=CLOSING_SECONDS,
            ssl_certfile=config.certificate,
            ssl_keyfile=config.private_key,
        )
    )
    print(f"Open {link_of(config, listener.getsockname()[1], token)}")
    print(f"Runs: {config.runs[0]}. Ctrl-C ends the server; its jobs go on.", flush=True)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again after it has closed
    finally:
        listener.close()
        lock.close()
    print("Server ended. Jobs go on; start the server again to watch them.", flush=True)


class StudioServer(uvicorn.Server):
    """Server that ends streams and predictions first: it waits for all connections to close."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        studio = self.config.app.state.studio  # type: ignore[union-attr]  # our app
        studio.streams.close()
        studio.predictors.close()
        await super().shutdown(sockets)


def hold_state(state: Path) -> IO[str]:
    """Return the held lock of the folder of a server: two would start jobs on the same device.

    Raises UserError when another server has it.
    """
    lock = open(state / "lock", "a")  # noqa: SIM115 - held until the server ends
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        hint = "open the link that it has printed, or give another --state"
        raise UserError(
            f"--state {state}: another server uses this folder", field="state", hint=hint
        ) from None
    return lock


def require_safe_address(config: StudioConfig) -> None:
    """Raise UserError for an address of the network without TLS and without the explicit flag."""
    if is_loopback(config.host) or config.is_tls or config.insecure:
        return
    raise UserError(
        f"--host {config.host}: others could read the token and the data on the way; give "
        "--certificate and --private-key, or --insecure-http for a network that you trust",
        field="host",
        hint="from another machine, an SSH tunnel needs neither: ssh -L 8470:127.0.0.1:8470 SERVER",
    )


def require_certificate(config: StudioConfig) -> None:
    """Raise UserError for a certificate and a key that do not make a TLS server."""
    if config.certificate is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.certificate, config.private_key, password="")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--certificate {config.certificate}, --private-key {config.private_key}: expected two "
            f"PEM files that belong together, the key without a password ({error})",
            file=str(config.certificate),
            field="certificate",
        ) from None


class LineFormatter(logging.Formatter):
    """Formatter that escapes control characters: a name of a file can forge no line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def write_log_in_lines() -> None:
    """Write the log of the studio to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s: %(message)s"))
    log = logging.getLogger("visionloop.studio")
    log.handlers, log.propagate = [handler], False


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises UserError for an address that is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        field = "port" if taken else "host"
        why = "another program uses it" if taken else (getattr(error, "strerror", None) or error)
        hint = "give another --port, or 0 for any free one" if taken else None
        raise UserError(f"--{field} {host}:{port}: {why}", field=field, hint=hint) from None
    return listener


def link_of(config: StudioConfig, port: int, token: str) -> str:
    """Return the link that signs a browser in. The token is in the part that is never sent."""
    scheme = "https" if config.is_tls else "http"
    return f"{scheme}://{link_host(config.host)}:{port}/#token={token}"


def link_host(host: str) -> str:
    """Return the host of a link to a server that listens at an address, as in the Host header."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def state_folder() -> Path:
    """Return the folder of the studio's own files, see the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "visionloop" / "studio"
