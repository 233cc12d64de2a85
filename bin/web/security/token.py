"""The token of an installation, and the cookie that it is exchanged for."""

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from visionloop.engine.errors import UserError

TOKEN_BYTES = 32


def read_or_make_token(path: Path) -> str:
    """Return the token in a file that only its owner can read, made on the first call.

    The file gets mode 0600 and its folder 0700, also where they had another one. Raises UserError
    for a folder that others may write to and that holds other files.
    """
    make_private(path.parent, path.name)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        token = path.read_text(encoding="ascii").strip()
        if token:
            return token
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(file, "w", encoding="ascii") as opened:
        opened.write(f"{token}\n")
    return token


def make_private(folder: Path, own_file: str) -> None:
    """Make a folder that its owner alone can enter.

    A folder that exists is changed if it is empty or holds `own_file`: it may be any other one,
    such as /tmp. Who can write to a folder can exchange the files in it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o077:
        return
    if (folder / own_file).exists() or not any(folder.iterdir()):
        folder.chmod(0o700)
    elif mode & 0o022:
        raise UserError(
            f"--state {folder}: other users may write to this folder, and it holds other files; "
            "give an empty one, or a name that does not exist yet",
            file=str(folder),
            field="state",
        )


def cookie_of(token: str) -> str:
    """Return the value of the cookie: it proves the token and does not reveal it."""
    return hmac.new(token.encode(), b"visionloop session", hashlib.sha256).hexdigest()


def is_equal(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
