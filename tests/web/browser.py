"""A real browser for tests, without a driver: headless Chromium spoken to over pipes in its DevTools protocol.

Every request that doesn't stay on this machine is refused and remembered, so that a test can fail on it. Needs nothing
but the browser itself; `CHROMIUM` is None where there is none.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--disable-extensions", "--disable-default-apps", "--hide-scrollbars", "--force-color-profile=srgb",
    "--disable-features=Translate,MediaRouter,OptimizationHints", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Enter": (13, "\r"), "Backspace": (8, ""), "Escape": (27, ""), "Tab": (9, "")}


class Browser:
    """One page in one Chromium."""

    def __init__(self, *, scripts: bool = True, extra: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> None:
        self._near = ("127.0.0.1", "localhost", "::1", *also)
        self.strange: list[str] = []  # requests that would have left this machine
        self.errors: list[str] = []  # what the page complained about: scripts, content security policy
        self._answers: dict[int, dict[str, Any]] = {}
        self._buffer: deque[bytes] = deque()
        self._events: list[dict[str, Any]] = []
        self._number = 0
        self._start(extra)
        try:
            self._session = self._attach()
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Fetch.enable", patterns=[{"urlPattern": "*"}])
            if not scripts:
                self.call("Emulation.setScriptExecutionDisabled", value=True)
        except BaseException:
            self.close()
            raise

    def _start(self, extra: tuple[str, ...]) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="tunewright-browser-"))
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        # Chromium speaks on descriptors 3 and 4; ours go above them first, so that neither overwrites the other.
        high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 64) for number in (there, back)]
        nothing = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        actions = [
            nothing,
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_DUP2, *pair) for pair in zip(high, (3, 4), strict=True)),
        ]
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={self._profile}", *extra, "about:blank"]
        self._process = os.posix_spawn(
            command[0], command, os.environ | {"HOME": str(self._profile)}, file_actions=actions
        )
        for number in (there, back, *high):
            os.close(number)

    def _attach(self) -> str:
        self._session = ""
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        return self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def close(self) -> None:
        """End it, whatever state it is in."""
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not os.waitpid(self._process, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                os.kill(self._process, signal.SIGKILL)
            time.sleep(0.01)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the protocol ----

    def call(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        number = self._send(method, parameters)
        self._pump(lambda: number in self._answers, f"an answer to {method}")
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        return self._number

    def _pump(self, done: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Read what the browser says until it is done."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            assert left > 0, f"waited {seconds} s for {what}"
            if select.select([self._read], [], [], min(left, 0.05))[0]:
                piece = os.read(self._read, 1 << 20)
                assert piece, "the browser is gone"
                self._take(piece)

    def _take(self, piece: bytes) -> None:
        *ends, rest = piece.split(b"\0")
        for end in ends:
            whole = b"".join([*self._buffer, end])
            self._buffer.clear()
            self._hear(json.loads(whole))
        self._buffer.append(rest)

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, said = message["method"], message["params"]
        if method == "Fetch.requestPaused":
            self._admit(said)
        elif method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"].get("exception", {}).get("description", str(said)))
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])
        elif method in ("Page.loadEventFired", "Page.frameNavigated", "Page.javascriptDialogOpening"):
            self._events.append(message)

    def _admit(self, said: dict[str, Any]) -> None:
        url = said["request"]["url"]
        at = urlsplit(url)
        if at.scheme in ("data", "about", "blob") or at.hostname in self._near:
            self._send("Fetch.continueRequest", {"requestId": said["requestId"]})
        else:
            self.strange.append(url)
            self._send("Fetch.failRequest", {"requestId": said["requestId"], "errorReason": "BlockedByClient"})

    # ---- as a person ----

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._pump(lambda: any(e["method"] == "Page.loadEventFired" for e in self._events), f"{url} to load")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 15.0) -> None:
        """Wait until it is true in the page; pages may come and go meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.js(f"Boolean({expression})"):
                    return
            except AssertionError:
                pass
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text()[:2000]}"
            time.sleep(0.01)

    def text(self) -> str:
        """What one reads on the page."""
        return str(self.js("document.body.innerText"))

    def press(self, *keys: str, modifiers: int = 0, held: bool = False) -> None:
        """Keys one after the other: single characters, or names as Enter; `held` ones repeat."""
        for key in keys:
            code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
            down: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            down["autoRepeat"] = held
            self.call("Input.dispatchKeyEvent", type="keyDown", text="" if modifiers else text, **down)
            self.call("Input.dispatchKeyEvent", type="keyUp", **down)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where an element is in the window."""
        code = f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        x, y = self.js(code + " return [b.x + b.width / 2, b.y + b.height / 2]; })()")
        return x, y

    def mouse(self, kind: str, at: tuple[float, float], *, held: bool = False) -> None:
        """mousePressed, mouseMoved or mouseReleased."""
        button = "left" if held or kind != "mouseMoved" else "none"
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button=button, buttons=int(held), clickCount=1
        )

    def click(self, selector: str) -> None:
        """The middle of an element."""
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        at = self.middle(selector)
        self.mouse("mouseMoved", at)
        self.mouse("mousePressed", at, held=True)
        self.mouse("mouseReleased", at)

    def drag(self, start: str, end: str) -> None:
        """From the middle of one element to that of another."""
        a, b = self.middle(start), self.middle(end)
        self.mouse("mouseMoved", a)
        self.mouse("mousePressed", a, held=True)
        for part in (0.1, 0.5, 1.0):
            self.mouse("mouseMoved", (a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])), held=True)
        self.mouse("mouseReleased", b)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot as PNG; of the window, or the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
