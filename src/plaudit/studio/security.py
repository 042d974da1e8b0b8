"""The door: what every request must be, and what every answer carries, before any page is asked.

A request names this studio as its Host. One that changes something and is believed for its cookie
must also come from a page of this studio: its Origin is its Host, it says so in a header that no
form of another page can set, and its body is JSON. A bearer token is never sent by a browser of its
own accord, so a request with one needs none of this.
Source: OWASP ASVS 5.0, 3.4 and 3.5; Fetch Metadata, section 2.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plaudit.studio.bodies import Patience, check_depth, once, streamed, whole_body
from plaudit.studio.problems import Refused, problem
from plaudit.studio.settings import Serving

CSP = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:",
        "media-src 'self' blob:", "connect-src 'self'", "font-src 'self'", "base-uri 'none'",
        "form-action 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
API, IMPORTS = "/api/", "/api/v1/imports"
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_PORTS = {"http": 80, "https": 443}


class Door:
    """Wraps the application: refuses what may not come in, and marks what goes out."""

    def __init__(self, app: ASGIApp, serving: Serving, patience: Patience | None = None) -> None:
        self._app, self._serving = app, serving
        self._patience = patience or Patience()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over a websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        path: str = scope["path"]
        begin = time.perf_counter()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if path.startswith(API):
                    headers.setdefault("Cache-Control", "no-store")
                    milliseconds = (time.perf_counter() - begin) * 1000
                    headers["Server-Timing"] = f"app;dur={milliseconds:.2f}"
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check(scope["method"], path, headers)
            if path == IMPORTS:
                inward = streamed(receive, self._patience)
            else:
                body = await whole_body(headers, receive, self._patience)
                if body is None:
                    return
                check_depth(body)
                inward = once(body, receive)
        except Refused as error:
            await problem(error.status, error.detail, error.headers)(scope, receive, marked)
            return
        await self._app(scope, inward, marked)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._serving.answers_to(host):
            raise Refused(
                421, "this studio is not reached under that name; see plaudit studio --public"
            )
        if method in SAFE or not path.startswith(API):
            return
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = "application/octet-stream" if path == IMPORTS else "application/json"
        is_empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        if kind != wanted and not (is_empty and not kind):
            raise Refused(415, f"the body must be {wanted}")
        if headers.get("authorization", "").lower().startswith("bearer "):
            return
        if not same_place(headers.get("origin", ""), host):
            raise Refused(403, "only pages of this studio may do this: Origin must be the Host")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Refused(403, "only pages of this studio may do this: it came from another site")
        if headers.get("x-plaudit") != "1":
            raise Refused(
                403, "only pages of this studio may do this: the header X-Plaudit is missing"
            )


def same_place(origin: str, host: str) -> bool:
    """Whether an Origin header is of the host and port that the Host header names."""
    try:
        parts = urlsplit(origin)
        ours = urlsplit(f"//{host}")
        usual = _PORTS.get(parts.scheme)
        if usual is None or parts.path or parts.query or not parts.hostname:
            return False
        return (parts.hostname, parts.port or usual) == (ours.hostname, ours.port or usual)
    except ValueError:
        return False
