"""A headless Chromium, spoken to over a pipe in the DevTools protocol: enough to look at a page, nothing to install.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 60.0  # seconds


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab.

    Attributes:
        requests: addresses that the page asked for.
        complaints: console errors and warnings, exceptions, log entries.
        width: of the window in CSS pixels, whatever the page makes of it.
    """

    def __init__(self, browser: _Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.width = 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, params, self._session, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(params["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])

    def show(
        self, address: str, *, width: int, height: int = 900, scheme: str = "light", medium: str = "screen"
    ) -> None:
        """Open an address at a width of so many CSS pixels; below 600 as on a phone."""
        self.requests.clear()
        self.complaints.clear()
        self.width = width
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=features)
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + _PATIENCE
        while self.run("document.readyState + location.href") != f"complete{address}":
            assert time.monotonic() < deadline, f"{address} did not load"
            time.sleep(0.02)
        self.run("document.fonts.ready.then(() => new Promise(requestAnimationFrame)).then(() => true)")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """A PNG of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """The page as it prints on A4."""
        self.call("Emulation.setEmulatedMedia", media="print")
        answer = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])


class _Browser:
    def __init__(self, executable: str, profile: str) -> None:
        ours, theirs = self._pipes()
        self._write, self._read = ours
        arguments = [
            executable,
            "--headless=new",
            "--no-sandbox",  # which root is refused
            "--remote-debugging-pipe",  # descriptors 3 and 4
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs[0], 3),
            (os.POSIX_SPAWN_DUP2, theirs[1], 4),
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)),
        ]
        self.pid = os.posix_spawn(executable, arguments, os.environ, file_actions=actions, setpgroup=0)
        for descriptor in theirs:
            os.close(descriptor)
        self._buffer, self._number = b"", 0

    @staticmethod
    def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
        """(our write, our read), (their read, their write), all of them out of the way of 3 and 4."""
        numbers = [*os.pipe(), *os.pipe()]
        moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in numbers]
        for number in numbers:
            os.close(number)
        return (moved[1], moved[2]), (moved[0], moved[3])

    def call(self, method: str, params: dict[str, Any], session: str | None, hear: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + _PATIENCE
        while True:
            heard = self._receive(deadline, method)
            if heard.get("id") == self._number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                result: dict[str, Any] = heard["result"]
                return result
            hear(heard)

    def _receive(self, deadline: float, waiting: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser did not answer {waiting}"
            part = os.read(self._read, 1 << 20)
            assert part, f"the browser closed during {waiting}"
            self._buffer += part
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close", {}, None, lambda event: None)
        deadline = time.monotonic() + 10
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.02)
        os.close(self._write)
        os.close(self._read)


@contextlib.contextmanager
def open_page(executable: str) -> Iterator[Page]:
    """A tab of a fresh browser, closed at the end."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        browser = _Browser(executable, profile)
        try:

            def ignore(event: dict[str, Any]) -> None: ...

            target = browser.call("Target.createTarget", {"url": "about:blank"}, None, ignore)["targetId"]
            attached = browser.call(
                "Target.attachToTarget", {"targetId": target, "flatten": True}, None, ignore
            )
            yield Page(browser, attached["sessionId"])
        finally:
            browser.close()
