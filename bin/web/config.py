"""Settings of a studio server: its address, its roots and its limits."""

from dataclasses import dataclass, field
from pathlib import Path

API = "/api/v1"
COOKIE = "visionloop_session"
HEADER = "x-visionloop"  # on every call that changes something: no form of another site can send it


@dataclass(frozen=True)
class Limits:
    """Limits of what one client can ask for. Sizes in bytes."""

    body: int = 1 << 20
    upload: int = 32 << 20
    decoded_pixels: int = 50_000_000
    waiting_uploads: int = 4
    event_streams: int = 32
    log_bytes: int = 256 << 10  # of one response


@dataclass(frozen=True)
class StudioConfig:
    """A studio server.

    Attributes:
        data, runs, models: folders below which data sets, runs and models may be named; new runs
            are written to the first of `runs`. All are resolved.
        augment: FILE.py:NAME, absolute, of the functions that `--augment` of a job may be.
        state: folder of the database, the token and the files of the jobs.
        host, port: address to listen at.
        allowed_hosts: values of the Host header that are accepted, without the port.
        certificate, private_key: PEM files of TLS, or None.
        insecure: the user has asked for plain HTTP on an address that is not the loopback.
    """

    data: tuple[Path, ...]
    runs: tuple[Path, ...]
    models: tuple[Path, ...]
    state: Path
    augment: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8470
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    certificate: Path | None = None
    private_key: Path | None = None
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def database(self) -> Path:
        return self.state / "studio.db"

    @property
    def jobs(self) -> Path:
        """Folder with a folder for each job: its log, its process and how it ended."""
        return self.state / "jobs"

    @property
    def is_tls(self) -> bool:
        return self.certificate is not None
