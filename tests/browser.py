"""A headless Chromium for tests, driven by its DevTools protocol; only what they need of it."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import urllib.request

NAMES = ("chromium", "chromium-browser", "google-chrome")
_STARTS_S = 60


def found():
    """The browser's path, ``None`` where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own, with a profile under ``folder``."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [
                found(),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-address=127.0.0.1",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        self.errors = []
        try:
            port = self._port(folder / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            self._connect(port, pages[0]["webSocketDebuggerUrl"].split(str(port), 1)[1])
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _port(self, path):
        until = time.monotonic() + _STARTS_S
        while time.monotonic() < until:
            if path.is_file() and (lines := path.read_text().split()):
                return int(lines[0])
            time.sleep(0.1)
        raise TimeoutError("the browser must say its port, and does not")

    def _connect(self, port, path):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._stream = self._socket.makefile("rb")
        assert b"101" in self._stream.readline()
        while self._stream.readline().strip():
            pass

    def call(self, method, **params):
        """The result of one command; errors of the page that come meanwhile are kept."""
        self._number += 1
        self._send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._receive())
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"]["text"])
            if message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["level"] == "error":
                    self.errors.append(entry["text"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _send(self, text):
        # RFC 6455: one final text frame, masked as a client's must be.
        data = text.encode()
        mask = os.urandom(4)
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x81, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
        self._socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def _receive(self):
        whole = b""
        while True:
            first, second = self._stream.read(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self._stream.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._stream.read(8))
            data = self._stream.read(size)
            if first & 0x0F in (0x0, 0x1):
                whole += data
                if first & 0x80:
                    return whole

    def open(self, url, width=1000, height=900):
        """Show a page and wait until it stands."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.getElementById('plot')")

    def run(self, script):
        """The value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition, seconds=30):
        """Until an expression holds in the page."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < until, f"{condition} does not come true"
            time.sleep(0.05)

    def press(self, key, text=""):
        """A key, as from a keyboard."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **extra)

    def click(self, selector):
        """The mouse's main button in the middle of an element."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="none" if kind == "mouseMoved" else "left",
                clickCount=0 if kind == "mouseMoved" else 1,
            )

    def screenshot(self):
        """The page as it looks, a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def close(self):
        """End the browser."""
        self._process.terminate()
        self._process.wait(30)
