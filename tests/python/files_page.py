"""A headless Chromium on the list of a folder: search, order, pages, tidying, the keyboard, a small
screen, and an upload whose server is killed.

Usage: files_page.py BROWSER FOLDER ROOT SERVER [PICTURES]

FOLDER has what is uploaded, ROOT is what the program SERVER is to serve; files_page.rs has filled both.
PICTURES is where screenshots go.
"""

import datetime
import glob
import os
import pathlib
import re
import sys

from chromium import eventually, run_all
from file_page import FilePage, Server

MIB = 1 << 20


def path_of(browser):
    return browser.value("location.pathname + location.search")


def typing_searches_all_names(browser):
    browser.open(server.url + "/long/")
    browser.mark()
    browser.value("document.querySelector('[type=search]').focus()")
    browser.type("FILE 204")
    browser.listed(*[f"file 204{number}" for number in range(10)])
    assert browser.value("document.getElementById('found').textContent.trim()") == \
        "10 names contain “FILE 204”"
    assert browser.focus() == "Search for names in this folder"
    browser.type("7")
    browser.listed("file 2047")
    assert path_of(browser) == "/long/?search=FILE+2047", path_of(browser)
    browser.type("<b>")
    eventually("nothing", lambda: "No name contains “FILE 2047<b>”" in browser.text(), browser.text)
    browser.value("document.querySelector('[type=search]').select()")
    browser.press("Escape")
    eventually("all again", lambda: len(browser.names()) == 1001, lambda: len(browser.names()))
    assert path_of(browser) == "/long/", path_of(browser)
    assert browser.is_marked()


def a_search_works_without_scripts(browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(server.url + "/long/?sort=name&desc")
    browser.value("document.querySelector('[type=search]').focus()")
    browser.type("1 & <")
    browser.press("Enter")
    browser.listed("1 & <2>.txt", "1 & <1>.txt")
    browser.click("th:nth-child(1) button")
    browser.listed("1 & <1>.txt", "1 & <2>.txt")
    browser.click("a", "Show all")
    eventually("all again", lambda: path_of(browser) == "/long/")
    browser.click(".pages a", "Last")
    eventually("the last page", lambda: len(browser.names()) == 52, lambda: len(browser.names()))
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def pages_are_turned_without_a_reload(browser):
    browser.open(server.url + "/long/")
    browser.mark()
    assert len(browser.names()) == 1001 and browser.names()[-1] == "file 0997", browser.names()[-1]
    browser.click(".pages a", "Next")
    eventually("the second", lambda: browser.names()[0] == "file 0998", lambda: browser.names()[0])
    assert "1,001 to 2,000 of 2,052" in browser.text()
    assert browser.value("scrollY") == 0
    browser.click(".pages a", "Last")
    eventually("the last", lambda: browser.names()[-1] == "file 2049", lambda: browser.names()[-1])
    browser.click("th:nth-child(1) button")
    eventually("from the end", lambda: browser.names()[:2] == ["..", "file 2049"], lambda: browser.names()[:2])
    assert browser.is_marked()
    browser.value("history.back()")
    eventually("the last", lambda: browser.names()[0] == "file 1998", lambda: browser.names()[0])
    browser.value("history.back()")
    eventually("the second", lambda: browser.names()[0] == "file 0998", lambda: browser.names()[0])
    assert browser.is_marked()


def an_upload_renews_the_list_where_it_is(browser):
    browser.open(server.url + "/tidy/?search=a")
    browser.mark()
    browser.listed("a full folder/", "a.txt")
    browser.value("document.querySelector('td a[href$=txt]').focus()")
    browser.choose([os.path.join(FOLDER, "another.txt"), os.path.join(FOLDER, "other.txt")])
    browser.wait_for_summary("2 uploaded")
    browser.listed("a full folder/", "a.txt", "another.txt")
    assert browser.focus() == "a.txt", browser.focus()
    assert browser.is_marked()


def each_kind_has_its_picture(browser):
    browser.open(server.url + "/kinds/")
    shown = browser.value("[...document.querySelectorAll('td svg')].map((one) => [one.getAttribute('class'),"
                          " one.getBoundingClientRect().width > 9 && one.getBBox().width > 9])")
    kinds = ["folder", "folder", "archive", "audio", "code", "file", "image", "table", "text", "video"]
    assert shown == [[kind, True] for kind in kinds], shown
    browser.pictures("kinds")


def times_are_those_of_the_clock_on_the_wall(browser):
    browser.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    browser.open(server.url + "/kinds/")
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    modified = datetime.datetime.fromtimestamp(os.path.getmtime(os.path.join(ROOT, "kinds/d")), zone)
    shown = browser.value("document.querySelector('td a[href$=\"/d\"]').closest('tr').cells[2].textContent")
    assert shown == modified.strftime("%Y-%m-%d %H:%M"), shown
    browser.call("Emulation.setTimezoneOverride", timezoneId="")


def records_what_is_sent(browser):
    """Has the page remember how long the bodies are that it sends."""
    browser.value("""{
      const send = XMLHttpRequest.prototype.send;
      window.sent = [];
      XMLHttpRequest.prototype.send = function (body) {
        if (body) window.sent.push(body.size);
        return send.call(this, body);
      };
    }""")


def percent(browser):
    found = [re.match(r"(\d+) %", text) for _, _, text in browser.uploads()]
    return [found and int(found[1]) for found in found]


def arrived_bytes(folder):
    """How much of an unfinished upload the server has."""
    names = glob.glob(os.path.join(ROOT, folder, ".quartet-*"))
    return sum(os.path.getsize(name) for name in names if ".head" not in name)


def synced_bytes(folder):
    """How much of an unfinished upload is on the disk, as its record says."""
    records = glob.glob(os.path.join(ROOT, folder, ".quartet-*.head"))
    return sum(int(pathlib.Path(record).read_bytes().split()[1]) for record in records)


def an_upload_continues_when_the_server_is_back(browser):
    large = os.path.join(FOLDER, "large.bin")
    bytes = os.path.getsize(large)
    browser.open(server.url + "/resumed/")
    browser.mark()
    records_what_is_sent(browser)
    browser.limit(12 * MIB)
    browser.choose([large, os.path.join(FOLDER, "other.txt")])
    # What the browser has sent may still be on its way, and what has arrived not yet on the disk.
    eventually("most is on the disk", lambda: synced_bytes("resumed") >= 32 * MIB, browser.uploads)
    server.kill()
    browser.limit(-1)
    eventually("it is lost", lambda: "lost" in browser.uploads()[0], browser.uploads)
    assert "the connection was lost; trying again in" in browser.uploads()[0][2], browser.uploads()
    browser.pictures("lost")
    server.start()
    # Unless it tries by itself at this moment.
    browser.value("document.querySelector('#uploads li.lost button')?.click()")
    browser.wait_for_summary("2 uploaded")
    browser.listed("large.bin", "other.txt")
    sent = [length for length in browser.value("window.sent") if length > 100]
    assert sent[0] == bytes and sent[-1] <= bytes - 32 * MIB, sent
    with open(large, "rb") as here, open(os.path.join(ROOT, "resumed/large.bin"), "rb") as there:
        assert here.read() == there.read()
    assert browser.is_marked()


def an_upload_continues_after_a_reload(browser):
    large = os.path.join(FOLDER, "large.bin")
    bytes = os.path.getsize(large)
    browser.open(server.url + "/reloaded/")
    # The page may ask before it is left, because somebody uses it.
    browser.click("h1")
    browser.limit(8 * MIB)
    browser.choose([large])
    eventually("a part has arrived", lambda: arrived_bytes("reloaded") >= 8 * MIB, browser.uploads)
    # The request of the old page may continue until the new one asks about it: it shall not be complete.
    browser.limit(MIB >> 4)
    browser.reload()
    records_what_is_sent(browser)
    browser.choose([large])
    eventually("the rest is on its way", lambda: browser.value("window.sent.length") == 1, browser.uploads)
    browser.limit(-1)
    browser.wait_for_summary("1 uploaded")
    sent = browser.value("window.sent")
    assert len(sent) == 1 and sent[0] <= bytes - 8 * MIB, sent
    with open(large, "rb") as here, open(os.path.join(ROOT, "reloaded/large.bin"), "rb") as there:
        assert here.read() == there.read()
    browser.open(server.url + "/reloaded/")
    browser.choose([large])
    browser.wait_for_summary("1 there already")
    browser.click("#uploads button", "Skip")


def a_cancelled_upload_leaves_nothing(browser):
    browser.open(server.url + "/cancelled/")
    browser.limit(4 * MIB)
    browser.choose([os.path.join(FOLDER, "large.bin")])
    eventually("it has begun", lambda: percent(browser)[0], browser.uploads)
    assert os.listdir(os.path.join(ROOT, "cancelled")), "the server has a part"
    browser.click("#uploads li button", "Cancel")
    browser.limit(-1)
    browser.wait_for_summary("1 cancelled")
    eventually("nothing is left", lambda: os.listdir(os.path.join(ROOT, "cancelled")) == [],
               lambda: os.listdir(os.path.join(ROOT, "cancelled")))
    assert browser.value("Object.keys(localStorage).length") == 0


def all_can_be_done_with_the_keyboard(browser):
    browser.open(server.url + "/tidy/")
    seen = []
    browser.press("Tab")
    while browser.focus() and browser.focus() not in seen[:1]:
        seen.append(browser.focus())
        outline = browser.value(
            "(({activeElement: one}) => ['', 'label'].map((kind) => kind ? one.closest(kind) : one)"
            ".some((one) => one && getComputedStyle(one).outlineStyle !== 'none'))(document)")
        assert outline, browser.focus()
        browser.press("Tab")
    for wanted in ["/", "Search for names in this folder", "Upload files", "Upload a folder",
                   "name\u00a0↑", "size", "time", "The folder above", "a.txt"]:
        assert wanted in seen, (wanted, seen)
    # The order on the page is the order of the keyboard.
    assert seen.index("Upload files") < seen.index("name\u00a0↑") < seen.index("a.txt"), seen


def all_has_a_name_for_a_screen_reader(browser):
    browser.open(server.url + "/tidy/")
    browser.choose([os.path.join(FOLDER, name) for name in ["another.txt", "other.txt"]])
    browser.wait_for_summary("2 there already")
    told = browser.accessible()
    wanted = {"banner", "main", "navigation", "search", "searchbox", "table", "columnheader", "status", "heading",
              "progressbar"}
    assert wanted <= {role for role, _, _ in told}, told
    for name in ["Skip: other.txt", "Keep both: other.txt", "Skip (all)", "zip", "The folder above"]:
        assert name in [name for _, name, _ in told], (name, told)
    browser.has_no_unnamed()
    browser.click("#uploads button", "Skip (all)")
    browser.wait_for_summary("2 skipped")
    browser.click("#uploads button", "Clear")
    # What had the focus is gone.
    assert browser.focus() == "Upload files", browser.focus()


def uploads_are_announced_and_not_too_often(browser):
    browser.open(server.url + "/tidy/")
    # The pause between two announcements ends when the test says so.
    browser.value("""{
      const {setTimeout} = window;
      window.pauses = [];
      window.setTimeout = (act, millis) => millis === 5000 ? pauses.push(act) : setTimeout(act, millis);
      window.said = [];
      const spoken = document.querySelector("[role=status].unseen");
      new MutationObserver(() => said.push(spoken.textContent)).observe(spoken, {childList: true});
    }""")
    browser.choose([os.path.join(FOLDER, name) for name in ["another.txt", "other.txt"]])
    browser.wait_for_summary("2 there already")
    browser.click("#uploads button", "Keep both (all)")
    browser.wait_for_summary("2 uploaded")
    assert browser.value("said") == ["1 waiting"] and browser.value("pauses.length") == 1, browser.value("said")
    browser.value("pauses.pop()()")
    assert browser.value("said") == ["1 waiting", "2 uploaded"], browser.value("said")
    browser.value("pauses.pop()()")
    assert browser.value("said.length") == 2 and browser.value("pauses") == []


def a_small_screen_shows_all(browser):
    for folder in ["/long/", "/tidy/", "/kinds/"]:
        browser.open(server.url + folder)
        browser.call("Emulation.setDeviceMetricsOverride",
                     width=320, height=640, deviceScaleFactor=2, mobile=True)
        eventually("it fits", lambda: browser.value("document.documentElement.scrollWidth") <= 320,
                   lambda: browser.value("document.documentElement.scrollWidth"))
        browser.call("Emulation.clearDeviceMetricsOverride")


PROGRAM, FOLDER, ROOT, SERVER = sys.argv[1:5]
PICTURES = sys.argv[5] if len(sys.argv) > 5 else None
server = Server(SERVER, ROOT)
try:
    run_all(FilePage, PROGRAM, PICTURES, [
        typing_searches_all_names,
        a_search_works_without_scripts,
        pages_are_turned_without_a_reload,
        an_upload_renews_the_list_where_it_is,
        each_kind_has_its_picture,
        times_are_those_of_the_clock_on_the_wall,
        an_upload_continues_when_the_server_is_back,
        an_upload_continues_after_a_reload,
        a_cancelled_upload_leaves_nothing,
        all_can_be_done_with_the_keyboard,
        all_has_a_name_for_a_screen_reader,
        uploads_are_announced_and_not_too_often,
        a_small_screen_shows_all,
    ])
finally:
    server.kill()
