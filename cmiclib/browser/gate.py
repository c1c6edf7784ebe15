"""Who may ask the app, how much, and in what order."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import CMICError, MissingArrayError
from .upload import MAX_BYTES

log = logging.getLogger(__name__)
NAMES = ("127.0.0.1", "localhost", "::1")  # under other names a page from elsewhere would ask
MOST_BYTES = 2 * MAX_BYTES + 100_000  # photo, mask and fields
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Worker:
    """One thread that does what visitors ask, in turn, and a step of ``spare`` work when nobody waits."""

    def __init__(self, spare: Iterator[None]):
        self._jobs = queue.SimpleQueue[tuple[Future, Callable[[], Any]] | None]()
        self._thread = threading.Thread(target=self._work, args=(spare,), name="search", daemon=True)
        self._thread.start()

    async def ask(self, job: Callable[[], Any]) -> Any:
        """Return what the job returns, once it is its turn."""
        future = Future[Any]()
        self._jobs.put((future, job))
        return await asyncio.wrap_future(future)

    def stop(self, seconds: float) -> bool:
        """End after the present job; return whether that happened in time."""
        self._jobs.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self, spare: Iterator[None]) -> None:
        idle = True
        while True:
            try:
                job = self._jobs.get(block=not idle)
            except queue.Empty:
                try:
                    idle = next(spare, self) is None
                except Exception:
                    log.exception("the limit below which nothing fits was not computed")
                    idle = False
                continue
            if job is None:
                return
            future, do = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(do())
                except BaseException as error:
                    future.set_exception(error)


class Guard:
    """Lets in what this machine's own page may ask, up to a number of bytes, and adds the headers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        headers, sent = Headers(scope=scope), 0

        async def counted() -> Message:
            nonlocal sent
            message = await receive()
            sent += len(message.get("body", b""))
            if sent > MOST_BYTES:
                raise TOO_LARGE
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        length = headers.get("content-length", "0")
        if not _from_here(headers):
            problem = HTTPException(403, "this app answers its own page and programs on this machine only")
            await refuse(None, problem)(scope, receive, with_headers)
        elif length.isdecimal() and int(length) > MOST_BYTES:
            await refuse(None, TOO_LARGE)(scope, receive, with_headers)
        else:
            await self.app(scope, counted, with_headers)


TOO_LARGE = HTTPException(413, f"this is more than {MAX_BYTES // 1_000_000} MB for a photo and as much for its mask")


def _from_here(headers: Headers) -> bool:
    """Tell whether the app is asked under its own name, and by its own page, by a program or by a followed link."""
    host = headers.get("host", "")
    try:
        own = urlsplit(f"//{host}").hostname in NAMES
    except ValueError:
        own = False
    followed = headers.get("sec-fetch-mode") == "navigate"
    near = followed or headers.get("sec-fetch-site", "none") in ("same-origin", "none")
    return own and near and headers.get("origin", f"http://{host}") == f"http://{host}"


def refuse(request: Request | None, error: Exception) -> Response:
    """Say what went wrong without a path or a traceback; the latter goes to the console."""
    if isinstance(error, HTTPException):
        fix = "try again in a moment" if error.status_code == 503 else ""
        return reply_json({"problem": str(error.detail), "fix": fix}, error.status_code, error.headers)
    if isinstance(error, CMICError):
        status = 404 if isinstance(error, MissingArrayError) else 400
        return reply_json({"problem": error.problem, "fix": error.fix or ""}, status)
    return reply_json({"problem": "this failed unexpectedly", "fix": "try another photo"}, 500)


def reply_json(values: Any, status: int = 200, headers: Any = None) -> Response:
    """Reply with what nobody shall keep."""
    return JSONResponse(values, status, {"Cache-Control": "no-store", **(headers or {})})
