"""The app's server under visitors in Chromium: the first answer, many at once, reloads, and its end."""

import os
import signal
import time

import pytest
from chromium import Watched, chromium
from live import app_server, opened

pytestmark = pytest.mark.browser
CARD = "#results button img"


def test_twenty_visitors_at_once_ten_reloads_and_a_server_that_dies(tiny_run, tiny_benchmark, tmp_path):
    server, port = app_server(tiny_run, tiny_benchmark.path, tmp_path)
    home = f"http://127.0.0.1:{port}/"
    try:
        with chromium() as browser:
            seconds = []
            for _ in range(3):  # the first one warms up what a machine keeps of Chromium
                one = Watched(browser, home)
                started = time.perf_counter()
                one.page.goto(home)
                one.page.wait_for_selector(CARD)
                seconds.append(time.perf_counter() - started)
                assert one.problems == []
            first = min(seconds)
            assert first <= 3
            for _ in range(10):
                one.page.reload(wait_until="domcontentloaded")
            one.page.wait_for_selector(CARD)
            visitors = [Watched(browser, home) for _ in range(20)]
            started = time.perf_counter()
            for visitor in visitors:
                visitor.page.goto(home, wait_until="commit")
            for visitor in visitors:
                visitor.page.wait_for_selector(CARD)
            together = time.perf_counter() - started
            late = f"failed: {home}health"  # twenty tabs starve each other, and one may give up on a heartbeat
            assert [[p for p in visitor.problems if p != late] for visitor in visitors] == [[]] * 20
            for visitor in visitors[1:]:
                visitor.page.close()
            last = visitors[0].page
            last.wait_for_selector("#lost", state="hidden")
            os.killpg(server.pid, signal.SIGKILL)
            started = time.perf_counter()
            last.wait_for_selector("#lost", state="visible", timeout=5000)
            lost = time.perf_counter() - started
            last.locator("#samples button").nth(1).click()
            last.wait_for_selector("#problem .bad")
            assert last.locator("#results li").count() == 0
            print(f"first answer {first:.1f} s, 20 visitors {together:.1f} s, connection lost {lost:.1f} s")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_with_a_visitor_there(tiny_run, tiny_benchmark, tmp_path, number):
    server, port = app_server(tiny_run, tiny_benchmark.path, tmp_path)
    with opened(server, tmp_path, port, "") as tab:
        tab.page.wait_for_selector(CARD)
        started = time.perf_counter()
        server.send_signal(number)
        server.wait(2)
        print(f"ended after {time.perf_counter() - started:.2f} s")
        with pytest.raises(ProcessLookupError):
            os.killpg(server.pid, 0)  # nobody of its group is left
