"""Headless Chromium for tests of our HTML pages, spoken to in the DevTools protocol over a pipe.

Needs nothing but the browser itself (Debian: `apt-get install chromium`); without it these tests are left out.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_TIMEOUT = 60.0
_KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}  # those that the browser itself acts on


class Browser:
    """One browser process. `open` shows a file in a new page."""

    def __init__(self, executable: str, profile: Path) -> None:
        to_browser, ours_out = os.pipe()
        ours_in, from_browser = os.pipe()

        def place_pipes() -> None:
            """The browser reads commands from descriptor 3 and writes answers to 4, whatever lies there now."""
            commands, answers = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser))
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [executable, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place_pipes,
            close_fds=False,  # Python's own descriptors are not inherited anyway
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = ours_out, ours_in
        self._received = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that arrive meanwhile are kept."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (answer := self._receive(method)).get("id") != self._last:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait_for_event(self) -> None:
        """Wait for the next event, and keep it."""
        self.events.append(self._receive("an event"))

    def _receive(self, method: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            if not select.select([self._in], [], [], _TIMEOUT)[0]:
                raise TimeoutError(f"no answer to {method}")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise RuntimeError(f"the browser has ended during {method}")
            self._received += chunk
        message, self._received = self._received.split(b"\0", 1)
        return json.loads(message)

    def open(
        self,
        file: Path,
        width: int = 1280,
        height: int = 800,
        *,
        dark: bool = False,
        phone: bool = False,
        scale: float = 1.0,
        calm: bool = True,
    ) -> Page:
        """A file in a new page of this size in CSS pixels; `calm` asks for reduced motion."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        page.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        page.send(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
            ],
        )
        page.send("Page.setLifecycleEventsEnabled", enabled=True)
        loader = page.send("Page.navigate", url=file.resolve().as_uri())["loaderId"]
        page.wait_for_event("Page.lifecycleEvent", {"name": "load", "loaderId": loader})
        return page

    def close(self) -> None:
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._out)
        os.close(self._in)


class Page:
    """A tab that shows one file."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true, which the page looks at before each of its frames."""
        self.js(
            "new Promise((done, failed) => { const look = () => { "
            f"try {{ ({condition}) ? done() : requestAnimationFrame(look); }} catch (error) {{ failed(error); }} "
            "}; look(); })"
        )

    def wait_for_event(self, method: str, wanted: dict[str, Any]) -> None:
        """Until the browser has sent an event with these parameters."""
        while not any(wanted.items() <= event.items() for event in self._events(method)):
            self._browser.wait_for_event()

    def key(self, key: str, *, shift: bool = False, kind: str = "both") -> None:
        """Presses and releases a key (`a`, `ArrowLeft`, ` `); `kind` is `down` or `up` for half of it."""
        text = key if len(key) == 1 else ""
        common = {"key": key, "modifiers": 8 if shift else 0, "windowsVirtualKeyCode": _KEY_CODES.get(key, 0)}
        if kind in ("both", "down"):
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        if kind in ("both", "up"):
            self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """`mousePressed`, `mouseMoved`, `mouseReleased` or `mouseWheel` at a place in CSS pixels."""
        button = {"button": "left", "clickCount": 1} if kind in ("mousePressed", "mouseReleased") else {}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**button, **more})

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mousePressed", *start)
        for part in (0.25, 0.5, 0.75, 1.0):
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, buttons=1)
        self.mouse("mouseReleased", *end)

    def click(self, selector: str) -> None:
        """A click in the middle of an element."""
        self.mouse("mousePressed", *self.middle(selector))
        self.mouse("mouseReleased", *self.middle(selector))

    def middle(self, selector: str) -> tuple[float, float]:
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        return box[0], box[1]

    def screenshot(self, file: Path | None = None, *, full: bool = False) -> bytes:
        """What is seen, or all of the page, as PNG."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        data = base64.b64decode(answer["data"])
        if file:
            file.write_bytes(data)
        return data

    def _events(self, method: str) -> Iterator[dict[str, Any]]:
        self.js("0")  # collects what is on its way
        for event in self._browser.events:
            if event.get("sessionId") == self._session and event["method"] == method:
                yield event["params"]

    @property
    def errors(self) -> list[str]:
        """Exceptions, failed assertions and logged errors (refused requests too) since the page was opened."""
        found = [e["exceptionDetails"]["text"] for e in self._events("Runtime.exceptionThrown")]
        found += [e["entry"]["text"] for e in self._events("Log.entryAdded") if e["entry"]["level"] == "error"]
        found += [str(e["args"]) for e in self._events("Runtime.consoleAPICalled") if e["type"] in ("error", "assert")]
        return found

    @property
    def requests(self) -> list[str]:
        """Addresses the page has asked for, apart from the file itself and what it carries inside."""
        urls = [e["request"]["url"] for e in self._events("Network.requestWillBeSent") if e["type"] != "Document"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def close(self) -> None:
        self._browser.send("Target.closeTarget", targetId=self._target)


def executable() -> str | None:
    """The browser's path; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def running() -> Iterator[Browser]:
    """A browser with a new, empty profile."""
    found = executable()
    assert found is not None, "no Chromium here; on Debian: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(found, Path(profile))
        try:
            yield browser
        finally:
            browser.close()
