"""Checks of every request before it reaches an endpoint.

Each control closes one attack: the Host list that of a name which another site points at this
machine (DNS rebinding); Origin, Sec-Fetch-Site and the header of ours those of a page of another
site that sends requests with the user's cookie; the cookie or token all others.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visionloop.bin.web.config import API, COOKIE, HEADER, StudioConfig
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.security.token import cookie_of, is_equal

POLICY_VIOLATION = 1008  # of RFC 6455: no endpoint speaks WebSocket, which no check here covers
LONGEST_LENGTH = 15  # digits
SAFE_METHODS = ("GET", "HEAD")
SESSION = f"{API}/session"
DOCS = "/api/docs"
UPLOADS = f"{API}/predictions"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
RESPONSE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware with all checks. No response of it depends on a path that exists."""

    def __init__(self, app: ASGIApp, config: StudioConfig, token: str) -> None:
        self.app, self.config, self.token = app, config, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        body = Body(receive, self.limit_of(scope["path"]))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                body.has_response = True
                headers = MutableHeaders(scope=message)
                for name, value in RESPONSE_HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith(API):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        async def send_response(message: Message) -> None:
            # FastAPI makes an error of its own of one that is raised while it reads a body
            if body.has_response or not body.is_too_large:
                await send_with_headers(message)

        try:
            self.check(scope["method"], scope["path"], Headers(scope=scope), body.limit)
            await self.app(scope, body.receive, send_response)
            if body.is_too_large and not body.has_response:
                raise too_large(body.limit)
        except Problem as problem:
            await problem.response()(scope, receive, send_with_headers)

    def limit_of(self, path: str) -> int:
        """Return the largest body in bytes."""
        limits = self.config.limits
        return limits.upload if path.startswith(UPLOADS) else limits.body

    def check(self, method: str, path: str, headers: Mapping[str, str], limit: int) -> None:
        """Raise Problem for a request that is refused."""
        if host_name(headers.get("host", "")) not in self.config.allowed_hosts:
            raise Problem(421, "wrong_host", "Host: not a name of this server", field="host")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Problem(400, "bad_input", "Content-Length: expected a number")
        if len(length) > LONGEST_LENGTH or int(length) > limit:
            raise too_large(limit)
        if not path.startswith("/api/") or path == DOCS:
            return
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Problem(403, "cross_site", "Sec-Fetch-Site: a page of another site asked")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins(headers["host"]):
            raise Problem(403, "cross_site", "Origin: a page of another site asked")
        if method not in SAFE_METHODS and HEADER not in headers:
            raise Problem(403, "missing_header", f"expected the header {HEADER}", field=HEADER)
        if (method, path) != ("POST", SESSION) and not self.is_signed_in(headers):
            hint = "open the link that the server has printed"
            raise Problem(401, "not_signed_in", "expected the cookie of this server", hint=hint)

    def origins(self, host: str) -> tuple[str, ...]:
        """Return the origins of this server's own pages."""
        return (f"{'https' if self.config.is_tls else 'http'}://{host}",)

    def is_signed_in(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request has the cookie, or the token for a program."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return is_equal(given, self.token)
        # not http.cookies, which drops all cookies when that of another program here is malformed
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        return cookie is not None and is_equal(cookie, cookie_of(self.token))


class Body:
    """The body of a request within a limit in bytes, whatever its headers say."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit, self.size = receive, limit, 0
        self.has_response = False

    @property
    def is_too_large(self) -> bool:
        return self.size > self.limit

    async def receive(self) -> Message:
        """Return the next part. Raises Problem (413) when the body grows above the limit."""
        message = await self._receive()
        self.size += len(message.get("body", b""))
        if self.is_too_large:
            raise too_large(self.limit)
        return message


def host_name(host: str) -> str:
    """Return a Host header without the port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def too_large(limit: int) -> Problem:
    return Problem(413, "too_large", f"body: more than {limit} bytes", field="body")
