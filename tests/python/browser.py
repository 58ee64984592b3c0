"""A headless Chromium against the file server, as a person would use it.

Usage: browser.py BROWSER FOLDER URL CREATE_ONLY_URL PASSWORD_URL [PICTURES]

The URLs are of three servers on one root, which browser.rs has filled, as it has FOLDER with what is
to be uploaded. One of them replaces no file, and one wants a password for uploads, ann's `secret`.
PICTURES is where screenshots go. The browser is told what to do through its DevTools protocol, a
JSON message in a WebSocket frame each (RFC 6455).
"""

import base64
import glob
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE_SECS = 60


class Browser:
    """A browser with one page."""

    def __init__(self, program, profile):
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
                assert "error" not in message, (method, message["error"])
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
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def open(self, url):
        self.call("Page.navigate", url=url)
        eventually(url, lambda: self.value(
            f"location.href === {json.dumps(url)} && document.readyState === 'complete'"))

    def choose(self, files, selector="input[type=file]"):
        """Chooses files in the form of the page."""
        # A page that still arrives may show all its names, and has another form in a moment.
        eventually("the page", lambda: self.value("document.readyState === 'complete'"))
        form = self.call("Runtime.evaluate",
                         expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", objectId=form["result"]["objectId"], files=files)

    def click(self, selector, text=""):
        """Clicks on the first element of a kind that is seen and has this text."""
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
        if PICTURES:
            picture = self.call("Page.captureScreenshot")["data"]
            pathlib.Path(PICTURES, name + ".png").write_bytes(base64.b64decode(picture))

    def pictures(self, name):
        """The page on a desk and on a phone, by day and by night."""
        if PICTURES:
            for phone in [False, True]:
                self.is_phone(phone)
                for dark in [False, True]:
                    self.is_dark(dark)
                    self.picture(f"{name}-{'phone' if phone else 'desk'}-{'dark' if dark else 'light'}")
            self.is_phone(False)
            self.is_dark(False)

    def text(self):
        return self.value("document.body?.innerText ?? ''")

    def names(self):
        """What is listed, in its order."""
        return self.value("[...document.querySelectorAll('td:first-child a')].map(a => a.innerText)")

    def uploads(self):
        """What the page says of each upload: its name, how it stands, and the text."""
        return self.value("[...document.querySelectorAll('#uploads li')].map((row) =>"
                          " [row.children[0].textContent, row.className, row.children[1].textContent])")

    def summary(self):
        return self.value("document.querySelector('#uploads [role=status]').textContent")

    def wait_for_summary(self, wanted):
        eventually(wanted, lambda: self.summary() == wanted, self.uploads)


def eventually(what, holds, shown=lambda: "", patience=PATIENCE_SECS):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not in {patience} s: {what}; {shown()}"
        time.sleep(0.02)


def get(target):
    """What the server has, asked without the browser; `None` if nothing."""
    try:
        return urllib.request.urlopen(URL + urllib.parse.quote(target)).read()
    except urllib.error.HTTPError as error:
        assert error.code == 404, error
        return None


def a_page_has_its_style_sheet_and_its_picture(browser):
    browser.open(URL + "/site/")
    assert browser.value("document.querySelector('img').naturalWidth") > 0
    assert browser.value("document.styleSheets[0].cssRules.length") > 0


def a_listing_is_sorted_by_its_headings(browser):
    browser.open(URL + "/sorted/")
    assert browser.names() == ["..", "a.txt", "b.txt", "c.txt"], browser.names()
    browser.click("th:nth-child(2) button")
    eventually("sorted by size", lambda: browser.names() == ["..", "b.txt", "c.txt", "a.txt"])
    browser.click("th:nth-child(2) button")
    eventually("the other way", lambda: browser.names() == ["..", "a.txt", "c.txt", "b.txt"])
    browser.click("h1 a")
    eventually("the root", lambda: browser.value("location.pathname") == "/")


def a_listing_is_light_or_dark_with_its_buttons(browser):
    browser.open(URL + "/sorted/")
    browser.pictures("listing")
    colors = []
    for dark in [False, True]:
        browser.is_dark(dark)
        colors.append(browser.value(
            "['body', 'button', 'label', 'a'].map((one) => getComputedStyle(document.querySelector(one)))"
            ".flatMap(({color, backgroundColor}) => [color, backgroundColor])"))
        assert browser.value("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    browser.is_dark(False)
    unchanged = [one for one, other in zip(*colors) if one == other and one != "rgba(0, 0, 0, 0)"]
    assert not unchanged, colors


def a_phone_shows_all_and_a_finger_hits_it(browser):
    browser.is_phone(True)
    browser.open(URL + "/sorted/")
    assert browser.value("document.documentElement.scrollWidth") <= 390, "fits a phone"
    name, moment = browser.value(
        "[...document.querySelectorAll('tr:last-child td')].map((cell) => cell.getBoundingClientRect())"
        ".filter((box, at) => at !== 1).map(({top, bottom, height}) => ({top, bottom, height}))")
    assert moment["height"] > 0 and moment["top"] >= name["bottom"] - 1, (name, moment)
    small = browser.value(
        "[...document.querySelectorAll('h1 a, button, label, tr:has(td)')].filter((one) => one.offsetParent)"
        ".filter((one) => { const box = one.getBoundingClientRect();"
        " return box.width < 44 || box.height < 44; }).map((one) => one.outerHTML)")
    assert small == [], small
    # All of the row is the link.
    missed = browser.value(
        "[...document.querySelectorAll('tr:has(td)')].filter((row) => {"
        " const box = row.getBoundingClientRect();"
        " const at = (y) => document.elementFromPoint(box.x + box.width - 9, y)?.closest('a');"
        " return !at(box.top + 3) || !at(box.bottom - 3); }).length")
    assert missed == 0, missed
    browser.is_phone(False)


def chosen_files_are_uploaded(browser):
    browser.open(URL + "/drop/")
    browser.choose([path("small.txt"), path("name & <b>.txt")])
    names = ["..", "name & <b>.txt", "small.txt"]
    eventually("both are listed", lambda: browser.names() == names)
    browser.wait_for_summary("2 uploaded")
    browser.click("#uploads li a", "<b>")
    eventually("the link leads to it", lambda: browser.text() == "odd")


def no_name_is_anything_but_a_name(browser):
    browser.open(URL + "/names/")
    browser.choose([path("odd/" + name) for name in sorted(os.listdir(path("odd")))])
    browser.wait_for_summary(f"{len(os.listdir(path('odd')))} uploaded")
    assert browser.value("document.querySelector('b, script + script')") is None
    browser.pictures("names")


def three_at_once_have_percent_and_a_way_to_cancel(browser):
    browser.open(URL + "/three/")
    browser.limit(300_000)
    browser.drop(*[path(f"large/{number}.bin") for number in range(5)])
    browser.wait_for_summary("3 uploading, 2 waiting")

    def percents():
        found = [re.fullmatch(r"(\d+) % of 600 KB, \d+ s left", text)
                 for _, state, text in browser.uploads() if state == "running"]
        return [found and int(found[1]) for found in found]

    eventually("all three have begun", lambda: all(percents()), percents)
    browser.pictures("uploading")
    browser.click("#uploads li.running button", "Cancel")
    browser.wait_for_summary("3 uploading, 1 waiting, 1 cancelled")
    browser.click("#uploads li.waiting button", "Cancel")
    browser.wait_for_summary("3 uploading, 2 cancelled")
    eventually("the others have begun, too", lambda: all(percents()), percents)
    # Else what was cancelled a moment ago might be fast enough.
    eventually("the server knows it", lambda: len(glob.glob(path("../root/three/.quartet-*"))) == 3)
    browser.limit(-1)
    browser.wait_for_summary("3 uploaded, 2 cancelled")
    cancelled = [name for name, state, _ in browser.uploads() if state == "cancelled"]
    done = [name for name, state, _ in browser.uploads() if state == "done"]
    eventually("those are listed", lambda: browser.names() == ["..", *done], lambda: (browser.names(), browser.uploads()))
    assert all(get("/three/" + name) is None for name in cancelled), cancelled
    browser.pictures("uploaded")
    browser.click("#uploads button", "Retry")
    browser.wait_for_summary("4 uploaded, 1 cancelled")
    browser.click("#uploads button", "Clear")
    eventually("nothing is left", lambda: browser.uploads() == [])


def nothing_is_overwritten_unasked(browser):
    browser.open(URL + "/there/")
    assert get("/there/1.txt") == b"old 1"
    browser.choose([path(f"new/{number}.txt") for number in range(4)])
    browser.wait_for_summary("3 there already, 1 uploaded")
    browser.pictures("asking")
    browser.click("#uploads li button", "Skip")
    browser.wait_for_summary("2 there already, 1 uploaded, 1 skipped")
    browser.click("#uploads li.asking button", "Keep both")
    browser.wait_for_summary("1 there already, 2 uploaded, 1 skipped")
    assert [get(f"/there/{number}.txt") for number in range(4)] == [b"new 0", b"old 1", b"old 2", b"old 3"]
    assert get("/there/2 (1).txt") == b"new 2"
    # What is there by now is not what the question was about.
    put = urllib.request.Request(URL + "/there/3.txt", data=b"newer 3", method="PUT")
    assert urllib.request.urlopen(put).status == 200
    browser.click("#uploads li.asking button", "Replace")
    eventually("it is asked about again", lambda: any(
        "7 B" in text for _, state, text in browser.uploads() if state == "asking"))
    assert get("/there/3.txt") == b"newer 3"
    browser.click("#uploads li.asking button", "Replace")
    browser.wait_for_summary("3 uploaded, 1 skipped")
    assert get("/there/3.txt") == b"new 3"
    browser.choose([path(f"new/{number}.txt") for number in range(4)])
    browser.wait_for_summary("4 there already, 3 uploaded, 1 skipped")
    browser.click("#uploads button", "Replace (all)")
    browser.wait_for_summary("7 uploaded, 1 skipped")
    assert [get(f"/there/{number}.txt") for number in range(4)] == [b"new 0", b"new 1", b"new 2", b"new 3"]


def what_comes_in_between_is_not_overwritten(browser):
    browser.open(URL + "/race/")
    browser.limit(300_000)
    browser.drop(path("large/0.bin"))
    eventually("it is on its way", lambda: any(" % of " in text for _, _, text in browser.uploads()))
    put = urllib.request.Request(URL + "/race/0.bin", data=b"of another", method="PUT")
    assert urllib.request.urlopen(put).status == 201
    browser.limit(-1)
    browser.wait_for_summary("1 there already")
    assert get("/race/0.bin") == b"of another"
    # The question would be lost with the page.
    browser.open(URL + "/race/")
    assert browser.questions == ["beforeunload"], browser.questions


def two_files_of_one_name_are_both_kept(browser):
    browser.open(URL + "/phone/")
    browser.choose([path("one/image.jpg"), path("two/image.jpg")])
    browser.wait_for_summary("2 uploaded")
    assert get("/phone/image.jpg") == b"one"
    assert get("/phone/image (1).jpg") == b"two"


def a_folder_is_uploaded_as_it_is(browser):
    browser.open(URL + "/folder/")
    browser.drop(path("tree"), path("small.txt"))
    # There is no file to say that it is there.
    browser.wait_for_summary("4 uploaded, 1 skipped")
    assert ["tree/hollow/", "skipped", "an empty folder"] in browser.uploads(), browser.uploads()
    eventually("it is listed", lambda: browser.names() == ["..", "tree/", "small.txt"])
    browser.open(URL + "/folder-chosen/")
    browser.choose([path("tree")], "input[webkitdirectory]")
    browser.wait_for_summary("3 uploaded")


def of_many_files_some_are_shown_and_none_is_lost(browser):
    browser.open(URL + "/many/")
    browser.is_offline(True)
    browser.choose([path("many/" + name) for name in os.listdir(path("many"))])
    browser.wait_for_summary("120 failed (100 of each are shown)")
    said = {(state, text) for _, state, text in browser.uploads()}
    assert said == {("failed", "the connection was lost")}, said
    assert len(browser.uploads()) == 100, len(browser.uploads())
    browser.is_offline(False)
    browser.click("#uploads li button", "Retry")
    browser.wait_for_summary("1 uploaded, 119 failed (100 of each are shown)")
    # One that had no room has it now.
    assert len(browser.uploads()) == 101, len(browser.uploads())
    browser.click("#uploads button", "Retry failed")
    browser.wait_for_summary("120 uploaded (100 of each are shown)")
    assert len(browser.uploads()) == 100, len(browser.uploads())
    eventually("they are listed", lambda: len(browser.names()) == 121)


def what_is_refused_is_said(browser):
    browser.open(URL + "/refused/")
    browser.choose([path("too-large.bin"), path("site")])
    browser.wait_for_summary("2 failed")
    # It is gone before its turn has come.
    browser.limit(100_000)
    browser.choose([*(path(f"large/{number}.bin") for number in range(3)), path("gone.txt")])
    browser.wait_for_summary("3 uploading, 1 waiting, 2 failed")
    os.remove(path("gone.txt"))
    browser.limit(-1)
    browser.wait_for_summary("3 uploaded, 3 failed")
    said = {name: text for name, _, text in browser.uploads()}
    assert said["too-large.bin"] == "exceeds 1.0 MB", said
    assert "folder" in said["site"], said
    assert said["gone.txt"] == "the file cannot be read, or has changed", said


def a_missing_page_has_a_way_back(browser):
    browser.open(URL + "/sorted/missing.txt")
    assert "404 Not Found" in browser.text()
    browser.pictures("missing")
    browser.click("a", "Back")
    eventually("the folder", lambda: browser.value("location.pathname") == "/sorted/")


def a_form_works_without_scripts(browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(URL + "/noscript/")
    browser.pictures("noscript")
    browser.choose([path("small.txt")])
    browser.click("#upload button")
    eventually("it is listed", lambda: browser.names() == ["..", "small.txt"])
    browser.choose([path("one/image.jpg"), path("two/image.jpg")]
                   + [path("odd/" + name) for name in os.listdir(path("odd"))])
    browser.click("#upload button")
    count = 1 + 1 + 2 + len(os.listdir(path("odd")))
    eventually("all are listed", lambda: len(browser.names()) == count, browser.names)
    browser.choose([path("other/small.txt")])
    browser.click("#upload button", "Upload")
    refused = "409 Conflict: small.txt: there is a file of this name already"
    eventually(refused, lambda: refused in browser.text())
    assert get("/noscript/small.txt") == b"small"
    browser.click("a", "Back")
    eventually("the folder", lambda: browser.value("location.pathname") == "/noscript/")
    browser.choose([path("other/small.txt")])
    browser.click("#upload button", "Upload and replace")
    eventually("it is replaced", lambda: get("/noscript/small.txt") == b"other")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def a_server_that_only_creates_offers_nothing_else(browser):
    browser.open(CREATE_ONLY_URL + "/there/")
    browser.choose([path("new/1.txt")])
    browser.wait_for_summary("1 there already")
    answers = browser.value(
        "[...document.querySelectorAll('#uploads li button')].map((one) => one.textContent)")
    assert answers == ["Skip", "Keep both"], answers
    browser.click("#uploads li button", "Keep both")
    browser.wait_for_summary("1 uploaded")
    assert get("/there/1 (1).txt") == b"new 1"


def a_password_is_asked_for_before_a_file_is_sent(browser):
    browser.open(PASSWORD_URL + "/password/")
    browser.call("Fetch.enable", handleAuthRequests=True)
    browser.choose([path("small.txt")])
    browser.wait_for_summary("1 uploaded")
    assert browser.asked_for == ["POST"], browser.asked_for
    browser.call("Fetch.disable")
    assert get("/password/small.txt") == b"small"


def path(name):
    return os.path.join(FOLDER, name)


PROGRAM, FOLDER, URL, CREATE_ONLY_URL, PASSWORD_URL = sys.argv[1:6]
PICTURES = sys.argv[6] if len(sys.argv) > 6 else None
with tempfile.TemporaryDirectory() as profile:
    browser = Browser(PROGRAM, profile)
    try:
        for test in [
            a_page_has_its_style_sheet_and_its_picture,
            a_listing_is_sorted_by_its_headings,
            a_listing_is_light_or_dark_with_its_buttons,
            a_phone_shows_all_and_a_finger_hits_it,
            chosen_files_are_uploaded,
            no_name_is_anything_but_a_name,
            three_at_once_have_percent_and_a_way_to_cancel,
            nothing_is_overwritten_unasked,
            what_comes_in_between_is_not_overwritten,
            two_files_of_one_name_are_both_kept,
            a_folder_is_uploaded_as_it_is,
            of_many_files_some_are_shown_and_none_is_lost,
            what_is_refused_is_said,
            a_missing_page_has_a_way_back,
            a_form_works_without_scripts,
            a_server_that_only_creates_offers_nothing_else,
            a_password_is_asked_for_before_a_file_is_sent,
        ]:
            started = time.monotonic()
            test(browser)
            assert browser.complaints == [], browser.complaints
            print(test.__name__, f"{time.monotonic() - started:.1f} s")
    finally:
        browser.end()
