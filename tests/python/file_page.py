"""A headless Chromium with the page of a folder, and the server of that page."""

import re
import subprocess

from chromium import Browser, eventually


class FilePage(Browser):
    """A browser with the page of a folder."""

    def names(self):
        """What is listed, in its order."""
        return self.value("[...document.querySelectorAll('td:first-child a')].map(a => a.innerText)")

    def uploads(self):
        """What the page says of each upload: its name, how it stands, and the text."""
        return self.value("[...document.querySelectorAll('#uploads li')].map((row) =>"
                          " [row.children[0].textContent, row.className, row.children[1].textContent])")

    def summary(self):
        return self.value("document.querySelector('#uploads .summary').textContent")

    def wait_for_summary(self, wanted):
        eventually(wanted, lambda: self.summary() == wanted, self.uploads)

    def listed(self, *names):
        """Waits for these names, without the way up."""
        wanted = list(names)
        eventually(wanted, lambda: [name for name in self.names() if name != ".."] == wanted,
                   lambda: (self.names()[:20], self.complaints))

    def mark(self):
        """Marks the page: a reload would lose that."""
        self.value("window.isMarked = true")

    def is_marked(self):
        return self.value("window.isMarked === true")

    def type(self, text):
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key, shift=False):
        """Presses a key that is no character, or Enter and space."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), " ": (32, " ")}[key]
        for kind in ["keyDown", "keyUp"]:
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key,
                      windowsVirtualKeyCode=code, modifiers=8 if shift else 0,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def focus(self):
        """What has the focus: what it is called."""
        return self.value(
            "(({activeElement: one, body}) => one === body ? '' : one.ariaLabel || one.labels?.[0]?.textContent.trim()"
            " || one.textContent.trim() || one.tagName)(document)")


    def accessible(self):
        """What a screen reader is told of: the role, the name and the description of each element."""
        self.call("Accessibility.enable")
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        self.call("Accessibility.disable")
        return [tuple(node.get(key, {}).get("value", "").strip() for key in ["role", "name", "description"])
                for node in nodes if not node["ignored"]]

    def has_no_unnamed(self):
        """Checks that all that can be used has a name."""
        used = ["button", "link", "searchbox", "textbox", "dialog", "progressbar", "columnheader"]
        unnamed = [node for node in self.accessible() if node[0] in used and not node[1]]
        assert not unnamed, unnamed


class Server:
    """A file server that is killed and started again at the same port."""

    def __init__(self, program, root, *options):
        self.line = ["--root", root, "--idle-exit", "0", *options]
        self.program = program
        self.port = 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.program, str(self.port), *self.line],
            stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if match := re.search(r"Server started on 127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                return
        raise AssertionError("the server does not start")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
