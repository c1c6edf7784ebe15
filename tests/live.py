"""Servers of the live browser for tests, and what a visitor does with it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from toybook import REPOSITORY

PATIENCE = 240_000  # milliseconds: a kernel imports torch first, on a busy machine
LAB = ["-m", "jupyterlab", "--no-browser", "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root"]


def start(command: list[str], folder: Path, address: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    for _ in range(PATIENCE // 1000):
        if server.poll() is not None:
            pytest.fail((folder / "server.log").read_text()[-2000:])
        try:
            urllib.request.urlopen(address, timeout=1)
            return server
        except OSError:  # not listening yet, or a page that takes longer because its kernel starts
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(address.split(":")[2].split("/")[0]))) == 0:
                    return server
            time.sleep(1)
    pytest.fail("the server did not start")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(page, name: str, content: bytes) -> None:
    """Upload a photo as a visitor does: the button opens a dialogue for files."""
    with page.expect_file_chooser() as dialogue:
        page.locator(".jupyter-widget-FileUpload, .widget-upload").first.click()
    dialogue.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def names(page) -> list[str]:
    words = page.locator(".cmic-ranking img").evaluate_all("images => images.map(image => image.alt)")
    return [text.split(": ")[1].split(",")[0] for text in words]
