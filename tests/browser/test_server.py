"""The app's server, asked as a browser never would: no file, no code, no other machine, not too many at once.

A small notebook stands in for the browser's; the configuration is the app's own.
"""

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClosedError, websocket_connect

from cmiclib.browser import app
from cmiclib.browser.upload import MAX_BYTES
from cmiclib.browser.visitors import FewKernels

SECRET = "nobody-shall-read-this"


class Server:
    """Voilà as the app starts it, in a folder with files that it must not show."""

    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        tree = app.notebook(None, None)
        tree["cells"][0]["source"] = "print('ready')"
        settings = app.settings(self.port, tab=False)
        settings["FewKernels"] = {"most": 2}
        for name, text in (("browser.ipynb", json.dumps(tree)), ("voila.json", json.dumps(settings))):
            (folder / name).write_text(text)
        for name in ("secret.txt", "secret.png", "secret.html"):
            (folder / name).write_text(SECRET)
        (folder.parent / "secret.png").write_text(SECRET)
        with (folder / "log").open("w") as log:
            command = [sys.executable, "-m", "voila", "browser.ipynb"]
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        pytest.fail("the server did not start")

    def ask(self, path: str, method: str = "GET", host: str = "", body: str | None = None) -> tuple[int, str]:
        """Send a request whose path nobody has tidied up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, text

    def visit(self) -> str:
        """Open the page as a visitor does; return the id of the visitor's kernel."""
        status, text = self.ask("/")
        assert status == 200 and "ready" in text
        found = re.search(r'kernelId"?:\s*"([0-9a-f-]{36})"', text)
        assert found
        return found[1]

    def leave(self, kernel: str) -> None:
        """Do what the page does when its tab is closed."""
        assert self.ask(f"/voila/api/shutdown/{kernel}", "POST", body="")[0] == 204

    def connect(self, kernel: str, **options):
        address = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels"
        return websocket_connect(HTTPRequest(address, **options))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("app"))
    yield started
    started.process.terminate()
    started.process.wait(60)


@pytest.fixture(scope="module")
def kernel(server: Server) -> str:
    """One visitor's kernel for all tests that need one; it stays to the end."""
    return server.visit()


UP = ["../" * 12, quote("../", safe="") * 12, "..%2f" * 12, "%2e%2e/" * 12, "..\\" * 12, "/"]
VOILA = ("files", "static", "templates", "templates/lab/static", "labextensions", "api/themes")
BELOW = ["/", "/files/", "/static/", "/nbextensions/", "/api/contents/", *(f"/voila/{part}/" for part in VOILA)]


@pytest.mark.parametrize("below", BELOW)
def test_no_path_leads_out(server: Server, below: str) -> None:
    for up in UP:
        for target in ("etc/passwd", quote(str(server.folder.parent)[1:]) + "/secret.png"):
            status, text = server.ask(below + up + target)
            assert status >= 300 and "root:" not in text and SECRET not in text, (below + up + target, status)


@pytest.mark.parametrize("name", ["secret.txt", "secret.png", "secret.html", "browser.ipynb", "voila.json", "log"])
def test_no_file_of_the_apps_folder_is_shown(server: Server, name: str) -> None:
    for below in BELOW:
        status, text = server.ask(below + name)
        assert status >= 300 and SECRET not in text and "VoilaConfiguration" not in text, below + name


@pytest.mark.parametrize(
    "path",
    ["/api/contents", "/api/kernels", "/api/sessions", "/api/terminals", "/api/kernelspecs", "/api/config/x", "/lab",
     "/tree", "/files", "/voila/tree", "/voila/render/secret.txt", "/terminals/1", "/login?next=/", "/metrics"],
)  # fmt: skip
def test_jupyters_other_doors_are_shut(server: Server, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        status, text = server.ask(path, method, body="{}" if method in ("POST", "PUT") else None)
        assert SECRET not in text and '"content"' not in text and '"id"' not in text, (method, path)
        assert status >= 300 or path.startswith("/login"), (method, path, status)


def message(kind: str, content: dict) -> str:
    header = {"msg_id": uuid4().hex, "username": "x", "session": uuid4().hex, "msg_type": kind, "version": "5.3"}
    parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    return json.dumps(parts | {"channel": "shell"})


def test_a_visitor_cannot_send_code(server: Server, kernel: str) -> None:
    written = server.folder / "written-by-a-visitor"
    code = f"open({str(written)!r}, 'w')"

    async def attempt() -> list[str]:
        connection = await server.connect(kernel)
        refused = ("execute_request", {"code": code, "silent": False, "user_expressions": {"x": code}})
        for kind, content in (refused, ("complete_request", {"code": code, "cursor_pos": 3}),
                              ("inspect_request", {"code": code, "cursor_pos": 3, "detail_level": 1}),
                              ("kernel_info_request", {})):  # fmt: skip
            await connection.write_message(message(kind, content))
        kinds = []
        while "kernel_info_reply" not in kinds:  # it was asked for last
            kinds.append(json.loads(await asyncio.wait_for(connection.read_message(), 60))["msg_type"])
        connection.close()
        return kinds

    assert not {"execute_reply", "execute_input", "complete_reply", "inspect_reply"} & set(asyncio.run(attempt()))
    assert not written.exists()


def test_pages_and_names_from_elsewhere_are_refused(server: Server, kernel: str) -> None:
    assert server.ask("/", host="attacker.example")[0] == 403

    async def attempt() -> None:
        await server.connect(kernel, headers={"Origin": "http://attacker.example"})

    with pytest.raises(HTTPClientError, match="403"):
        asyncio.run(attempt())


def test_a_message_larger_than_an_upload_ends_the_connection(server: Server, kernel: str) -> None:
    async def attempt() -> object:
        connection = await server.connect(kernel)
        with suppress(WebSocketClosedError):  # while it is still being sent
            await connection.write_message("x" * (2 * MAX_BYTES + 1))
        while (answer := await asyncio.wait_for(connection.read_message(), 60)) is not None:
            pass
        return answer

    assert asyncio.run(attempt()) is None


def test_two_visitors_and_no_more_until_one_leaves(server: Server, kernel: str) -> None:
    second = server.visit()
    assert second != kernel
    status, text = server.ask("/")
    assert status == 503 and "Traceback" not in text
    server.leave(second)
    server.leave(server.visit())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no second loopback address")
def test_it_listens_at_one_address_of_this_machine(server: Server) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", server.port)) != 0


def test_by_default_four_may_come() -> None:
    assert FewKernels.most.default_value == 4
