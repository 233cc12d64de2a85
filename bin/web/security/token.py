"""The token of an installation, and the cookie that it is exchanged for."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

TOKEN_BYTES = 32


def read_or_make_token(path: Path) -> str:
    """Return the token in a file that only its owner can read, made on the first call.

    The file gets mode 0600, also where it had another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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


def cookie_of(token: str) -> str:
    """Return the value of the cookie: it proves the token and does not reveal it."""
    return hmac.new(token.encode(), b"visionloop session", hashlib.sha256).hexdigest()


def is_equal(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
