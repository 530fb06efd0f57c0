"""A web page cannot make a browser call us. Needs Chromium, and is skipped without it."""
from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable, Iterator

import pytest

from net.identity import encode_text
from net.wire import legacy
from net.wire.messages import Call
from service import Service, greeted, request
from times import patience

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

# Tries all that a page may send without asking, and shows when it is through.
PAGE = """<!doctype html><title>a page</title><script>
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const bodies = [%s].map(bytes);
async function attempt() {
  for (const scheme of ["http", "https"])
    for (const body of bodies)
      for (const type of ["text/plain", "application/x-www-form-urlencoded"])
        for (const path of ["/", "/%%0d%%0a"])
          try {
            await fetch(scheme + "://127.0.0.1:%d" + path, {method: "POST", mode: "no-cors",
              body: new Blob([body], {type}), signal: AbortSignal.timeout(1000)});
          } catch (problem) {}
  await new Promise(done => {
    const socket = new WebSocket("ws://127.0.0.1:%d/");
    socket.onopen = () => bodies.forEach(body => socket.send(body));
    socket.onclose = done;
  });
  await fetch("/through");
}
addEventListener("load", attempt);
</script><body></body>
"""


class Site(ThreadingHTTPServer):
    """Serves the page, and knows when it is through."""

    daemon_threads = True

    def __init__(self, page: str) -> None:
        self.page = page.encode()
        self.through = threading.Event()
        super().__init__(("127.0.0.1", 0), Visit)


class Visit(BaseHTTPRequestHandler):
    """One request of the browser."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)
        if self.path == "/through":
            self.server.through.set()

    def log_message(self, *values: object) -> None:
        pass


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Callable[[str], bool]]:
    """``visit(page)``: whether a browser came through all that a page does."""
    with ExitStack() as opened:

        def show(page: str) -> bool:
            site = opened.enter_context(Site(page))
            thread = threading.Thread(target=site.serve_forever, args=(0.05,))
            thread.start()
            opened.callback(thread.join)
            opened.callback(site.shutdown)
            browser = subprocess.Popen(
                [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-dev-shm-usage", "--disable-background-networking",
                 "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
                 f"http://127.0.0.1:{site.server_port}/"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            opened.callback(browser.wait)
            opened.callback(os.killpg, browser.pid, signal.SIGKILL)
            return site.through.wait(patience(45))

        yield show


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.timeout(60)
def test_a_page_that_posts_recorded_requests_gets_nothing_executed(service: Service, visit):
    recorded = [greeted(request("add", 2, 3)), request("add", 2, 3),
                legacy.encode_call(Call(encode_text("add"), [2, 3], {}))]
    shown = ",".join(f'"{base64.b64encode(one).decode()}"' for one in recorded)
    came = count_connections(service)
    assert visit(PAGE % (shown, service.address[1], service.address[1]))
    assert len(came) >= len(recorded) * 2
    assert service.ran == []
    assert service.call("add", 2, 3) == 5


def count_connections(service: Service) -> list:
    """What the server accepts from now on."""
    came: list = []
    real = service.server._start

    def start(sock, address):
        came.append(address)
        real(sock, address)

    service.server._start = start
    return came
