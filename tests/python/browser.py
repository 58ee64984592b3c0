"""A headless Chromium against the file server, as a person would use it.

Usage: browser.py BROWSER FOLDER URL CREATE_ONLY_URL PASSWORD_URL [PICTURES]

The URLs are of three servers on one root, which browser.rs has filled, as it has FOLDER with what is
to be uploaded. One of them replaces no file, and one wants a password for uploads, ann's `secret`.
PICTURES is where screenshots go.
"""

import glob
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

from chromium import eventually, run_all
from file_page import FilePage


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
    browser.wait_for_summary("117 waiting, 3 waiting for the connection (100 of each are shown)")
    said = {text for _, state, text in browser.uploads() if state == "lost"}
    assert all(text.startswith("the connection was lost; trying again in") for text in said), said
    assert len(browser.uploads()) == 103, len(browser.uploads())
    browser.click("#uploads li.waiting button", "Cancel")
    browser.wait_for_summary("116 waiting, 3 waiting for the connection, 1 cancelled (100 of each are shown)")
    # One that had no room has it now.
    assert len(browser.uploads()) == 104, len(browser.uploads())
    browser.is_offline(False)
    browser.wait_for_summary("119 uploaded, 1 cancelled (100 of each are shown)")
    browser.click("#uploads li.cancelled button", "Retry")
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
    browser.click("#uploads button", "Retry failed")
    browser.wait_for_summary("3 uploaded, 3 failed")


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
run_all(FilePage, PROGRAM, PICTURES, [
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
])
