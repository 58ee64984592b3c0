"""A headless Chromium, told what to do through its DevTools protocol: a JSON message in a WebSocket
frame each (RFC 6455).
"""

import base64
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

PATIENCE_SECS = 60


class Refused(Exception):
    """The browser does not do what it is told."""


class Browser:
    """A browser with one page."""

    def __init__(self, program, profile, folder=None):
        # Where screenshots go, if anywhere.
        self.folder = folder
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             # Where there is little shared memory, a page would crash.
             "--disable-dev-shm-usage",
             # It asks nobody but the servers of this test.
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--no-first-run", "--disable-quic",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # What it keeps, it keeps in there, and what it starts ends with it.
            env={**os.environ, "HOME": profile, "TMPDIR": profile}, start_new_session=True)
        port_file = pathlib.Path(profile, "DevToolsActivePort")
        eventually("the browser starts", lambda: port_file.exists() and port_file.read_text(),
                   patience=2 * PATIENCE_SECS)
        port = int(port_file.read_text().split()[0])
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
        path = next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"]
        path = path.split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECS)
        self.input = self.socket.makefile("rb")
        self.socket.sendall((
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n").encode())
        while self.input.readline() != b"\r\n":
            pass
        self.calls = 0
        self.complaints = []
        self.questions = []
        self.asked_for = []
        for domain in ["Page", "DOM", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def end(self):
        """Ends the browser, and waits until none of its processes writes any more."""
        self.process.terminate()
        self.process.wait(PATIENCE_SECS)

        def is_gone():
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return True

        eventually("the browser ends", is_gone)

    def send(self, method, **parameters):
        self.calls += 1
        text = json.dumps({"id": self.calls, "method": method, "params": parameters}).encode()
        length = (bytes([0x80 | len(text)]) if len(text) < 126
                  else bytes([0x80 | 126]) + struct.pack(">H", len(text)))
        # A client has to mask what it sends; with zeros, that changes nothing.
        self.socket.sendall(b"\x81" + length + bytes(4) + text)
        return self.calls

    def call(self, method, **parameters):
        """Does something, and returns what came of it."""
        call = self.send(method, **parameters)
        while True:
            length = self.input.read(2)[1]
            if length == 126:
                length, = struct.unpack(">H", self.input.read(2))
            elif length == 127:
                length, = struct.unpack(">Q", self.input.read(8))
            message = json.loads(self.input.read(length))
            self.hear(message)
            if message.get("id") == call:
                if "error" in message:
                    raise Refused(method, message["error"]["message"])
                return message["result"]

    def hear(self, message):
        """Takes note of what nobody has asked for."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(message["params"])
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            # What the server refuses is said here, too.
            if entry["level"] == "error" and entry["source"] != "network":
                self.complaints.append(entry)

        if message.get("method") == "Fetch.requestPaused":
            self.send("Fetch.continueRequest", requestId=message["params"]["requestId"])
        if message.get("method") == "Fetch.authRequired":
            self.asked_for.append(message["params"]["request"]["method"])
            self.send("Fetch.continueWithAuth", requestId=message["params"]["requestId"],
                      authChallengeResponse={"response": "ProvideCredentials",
                                             "username": "ann", "password": "secret"})
        if message.get("method") == "Page.javascriptDialogOpening":
            self.questions.append(message["params"]["type"])
            self.send("Page.handleJavaScriptDialog", accept=True)

    def value(self, expression):
        """What a piece of script is worth on the page."""
        try:
            result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        except Refused as refused:
            # The page was replaced meanwhile: the new one is asked.
            if "navigated" not in str(refused):
                raise
            return self.value(expression)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def open(self, url):
        self.call("Page.navigate", url=url)
        eventually(url, lambda: self.value(
            f"location.href === {json.dumps(url)} && document.readyState === 'complete'"))

    def reload(self):
        """Loads the page anew. A page that another one replaces is kept for the way back, and its requests
        continue.
        """
        self.value("window.isOld = true")
        self.call("Page.reload")
        eventually("the page is new", lambda: self.value("!window.isOld && document.readyState === 'complete'"))

    def choose(self, files, selector="input[type=file]"):
        """Chooses files in the form of the page."""
        # A page that still arrives may show all its names, and has another form in a moment.
        eventually("the page", lambda: self.value("document.readyState === 'complete'"))
        form = self.call("Runtime.evaluate",
                         expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", objectId=form["result"]["objectId"], files=files)

    def click(self, selector, text=""):
        """Clicks on the first element of a kind that is seen and has this text."""
        # What moves while the page still arrives would be missed.
        eventually("the page", lambda: self.value("document.readyState === 'complete'"))
        place = self.value(
            f"(() => {{ const seen = [...document.querySelectorAll({json.dumps(selector)})].filter("
            f"(one) => one.offsetParent && one.textContent.includes({json.dumps(text)}));"
            "if (!seen[0]) return null;"
            "seen[0].scrollIntoView({block: 'center'});"
            "const {x, y, width, height} = seen[0].getBoundingClientRect();"
            "return {x: x + width / 2, y: y + height / 2}; })()")
        assert place, (selector, text, self.text())
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def drop(self, *files):
        """Drops files and folders from elsewhere on the page."""
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ["dragEnter", "dragOver", "drop"]:
            self.call("Input.dispatchDragEvent", type=kind, data=data, x=200, y=50)

    def limit(self, bytes_a_second):
        """Makes uploads slow, or with -1 fast again."""
        self.call("Network.emulateNetworkConditions", offline=False, latency=0,
                  downloadThroughput=-1, uploadThroughput=bytes_a_second)

    def is_offline(self, value):
        self.call("Network.emulateNetworkConditions", offline=value, latency=0,
                  downloadThroughput=-1, uploadThroughput=-1)

    def is_dark(self, value):
        scheme = "dark" if value else "light"
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def is_phone(self, value):
        if value:
            self.call("Emulation.setDeviceMetricsOverride",
                      width=390, height=700, deviceScaleFactor=2, mobile=True)
        else:
            self.call("Emulation.clearDeviceMetricsOverride")
        self.call("Emulation.setTouchEmulationEnabled", enabled=value)

    def picture(self, name):
        if self.folder:
            picture = self.call("Page.captureScreenshot")["data"]
            pathlib.Path(self.folder, name + ".png").write_bytes(base64.b64decode(picture))

    def pictures(self, name):
        """The page on a desk and on a phone, by day and by night."""
        if self.folder:
            for phone in [False, True]:
                self.is_phone(phone)
                for dark in [False, True]:
                    self.is_dark(dark)
                    self.picture(f"{name}-{'phone' if phone else 'desk'}-{'dark' if dark else 'light'}")
            self.is_phone(False)
            self.is_dark(False)

    def text(self):
        return self.value("document.body?.innerText ?? ''")


def run_all(kind, program, pictures, tests):
    """Runs these tests one after the other in a browser of this kind, and says how long each has taken. `pictures` is
    where screenshots go, if anywhere."""
    with tempfile.TemporaryDirectory() as profile:
        browser = kind(program, profile, pictures)
        try:
            for test in tests:
                started = time.monotonic()
                test(browser)
                assert browser.complaints == [], browser.complaints
                print(test.__name__, f"{time.monotonic() - started:.1f} s")
        finally:
            browser.end()


def eventually(what, holds, shown=lambda: "", patience=PATIENCE_SECS):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not in {patience} s: {what}; {shown()}"
        time.sleep(0.02)
