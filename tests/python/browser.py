"""A headless Chromium against the file server, as a person would use it.

Usage: browser.py BROWSER URL FOLDER [PICTURES]

URL is the server's root, in which stand a folder `site` with a page, its style sheet and a picture,
and an empty folder `drop`; FOLDER holds files to upload: small.txt, name & <b>.txt and large.bin.
PICTURES is where screenshots go. The browser is told what to do through its DevTools protocol, a
JSON message in a WebSocket frame each (RFC 6455).
"""

import base64
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE_SECS = 30


class Browser:
    """A browser with one page."""

    def __init__(self, program, profile):
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # What it keeps, it keeps in there, and what it starts ends with it.
            env={**os.environ, "HOME": profile, "TMPDIR": profile}, start_new_session=True)
        port_file = pathlib.Path(profile, "DevToolsActivePort")
        eventually("the browser starts", lambda: port_file.exists() and port_file.read_text())
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
        for domain in ["Page", "DOM", "Runtime"]:
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

    def call(self, method, **parameters):
        """Does something, and returns what came of it."""
        self.calls += 1
        text = json.dumps({"id": self.calls, "method": method, "params": parameters}).encode()
        length = (bytes([0x80 | len(text)]) if len(text) < 126
                  else bytes([0x80 | 126]) + struct.pack(">H", len(text)))
        # A client has to mask what it sends; with zeros, that changes nothing.
        self.socket.sendall(b"\x81" + length + bytes(4) + text)
        while True:
            length = self.input.read(2)[1]
            if length == 126:
                length, = struct.unpack(">H", self.input.read(2))
            elif length == 127:
                length, = struct.unpack(">Q", self.input.read(8))
            message = json.loads(self.input.read(length))
            if message.get("id") == self.calls:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def value(self, expression):
        """What a piece of script is worth on the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def open(self, url):
        self.call("Page.navigate", url=url)
        eventually(url, lambda: self.value(
            f"location.href === {json.dumps(url)} && document.readyState === 'complete'"))

    def choose(self, files):
        """Chooses files in the form of the page."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=files)

    def middle_of(self, selector):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        quad = self.call("DOM.getBoxModel", nodeId=node)["model"]["content"]
        return {"x": (quad[0] + quad[4]) / 2, "y": (quad[1] + quad[5]) / 2}

    def click(self, selector):
        place = self.middle_of(selector)
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def drop(self, files, selector):
        """Drops files from elsewhere on an element."""
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ["dragEnter", "dragOver", "drop"]:
            self.call("Input.dispatchDragEvent", type=kind, data=data, **self.middle_of(selector))

    def picture(self, name):
        if PICTURES:
            picture = self.call("Page.captureScreenshot")["data"]
            pathlib.Path(PICTURES, name).write_bytes(base64.b64decode(picture))

    def names(self):
        """What is listed, in its order."""
        return self.value("[...document.querySelectorAll('td:first-child a')].map(a => a.innerText)")


def eventually(what, holds):
    deadline = time.monotonic() + PATIENCE_SECS
    while not holds():
        assert time.monotonic() < deadline, f"not in {PATIENCE_SECS} s: {what}"
        time.sleep(0.02)


def a_page_has_its_style_sheet_and_its_picture(browser):
    browser.open(URL + "/site/")
    assert browser.value("document.querySelector('img').naturalWidth") > 0
    assert browser.value("document.styleSheets[0].cssRules.length") > 0
    browser.picture("page.png")


def a_listing_is_sorted_by_its_links(browser):
    browser.open(URL + "/sorted/")
    assert browser.names() == ["..", "a.txt", "b.txt", "c.txt"], browser.names()
    browser.click("th:nth-child(2) a")
    eventually("sorted by size", lambda: browser.names() == ["..", "b.txt", "c.txt", "a.txt"])
    browser.click("th:nth-child(2) a")
    eventually("the other way", lambda: browser.names() == ["..", "a.txt", "c.txt", "b.txt"])
    browser.click("h1 a")
    eventually("the root", lambda: browser.value("location.pathname") == "/")
    browser.picture("listing.png")
    browser.call("Emulation.setDeviceMetricsOverride",
                 width=390, height=700, deviceScaleFactor=2, mobile=True)
    assert browser.value("document.documentElement.scrollWidth") <= 390, "fits a phone"
    browser.picture("phone.png")
    browser.call("Emulation.clearDeviceMetricsOverride")


def chosen_files_are_uploaded(browser):
    browser.open(URL + "/drop/")
    browser.choose([path("small.txt"), path("name & <b>.txt")])
    browser.click("#upload button")
    names = ["..", "name & <b>.txt", "small.txt"]
    eventually("both are listed", lambda: browser.names() == names)


def dropped_files_have_a_progress_bar(browser):
    browser.open(URL + "/drop/")
    browser.call("Network.enable")
    browser.call("Network.emulateNetworkConditions", offline=False, latency=0,
                 downloadThroughput=-1, uploadThroughput=2_000_000)
    browser.drop([path("large.bin")], "h1")
    bar = "document.querySelector('#progress progress')"
    eventually("it has begun", lambda: browser.value(
        f"!!{bar} && {bar}.value > 0 && {bar}.value < {bar}.max"))
    assert "large.bin" in browser.value("document.getElementById('progress').innerText")
    browser.picture("progress.png")
    eventually("it is listed", lambda: "large.bin" in browser.names())
    browser.call("Network.emulateNetworkConditions", offline=False, latency=0,
                 downloadThroughput=-1, uploadThroughput=-1)


def a_form_works_without_scripts(browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(URL + "/noscript/")
    browser.choose([path("small.txt")])
    browser.click("#upload button")
    eventually("it is listed", lambda: browser.names() == ["..", "small.txt"])
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def path(name):
    return os.path.join(FOLDER, name)


PROGRAM, URL, FOLDER = sys.argv[1:4]
PICTURES = sys.argv[4] if len(sys.argv) > 4 else None
with tempfile.TemporaryDirectory() as profile:
    browser = Browser(PROGRAM, profile)
    try:
        for test in [
            a_page_has_its_style_sheet_and_its_picture,
            a_listing_is_sorted_by_its_links,
            chosen_files_are_uploaded,
            dropped_files_have_a_progress_bar,
            a_form_works_without_scripts,
        ]:
            test(browser)
            print(test.__name__)
    finally:
        browser.end()
