"""A headless Chromium that tidies a folder: new folders, other names, and what is deleted.

Usage: manage_page.py BROWSER FOLDER ROOT SERVER [PICTURES]

FOLDER has what is uploaded, ROOT is what the program SERVER is to serve; files_page.rs has filled both.
PICTURES is where screenshots go.
"""

import os
import sys

from chromium import eventually, run_all
from file_page import FilePage, Server


def there(*path):
    return os.path.exists(os.path.join(ROOT, "managed", *path))


def is_asked(browser):
    return browser.value("document.querySelector('dialog').open")


def says(browser, text):
    eventually(text, lambda: text in browser.value("document.querySelector('dialog').innerText"),
               lambda: browser.value("document.querySelector('dialog').innerText"))


def is_done(browser):
    eventually("the question is gone", lambda: not is_asked(browser), browser.text)


def answer(browser, text):
    """Types this instead of what is in the field of the question, and says yes."""
    browser.value("document.querySelector('dialog input').select()")
    browser.type(text)
    browser.press("Enter")


def act(browser, what):
    """Clicks on the button of a row."""
    browser.click(f"[aria-label={what!r}]")
    assert is_asked(browser), what


def a_folder_is_created(browser):
    browser.open(server.url + "/managed/")
    browser.mark()
    browser.click("#new-folder")
    says(browser, "New folder")
    assert browser.focus() == "Name", browser.focus()
    for wrong, why in [("a/b", "a name has no slash"), ("..", "this is no name"),
                       ("full", "there is “full” already"), (".quartet-upload-x", "reserved")]:
        answer(browser, wrong)
        says(browser, why)
    browser.pictures("dialog")
    answer(browser, "new <b> & 'ä'")
    is_done(browser)
    browser.listed("empty/", "full/", "new <b> & 'ä'/", "old name.tar.gz", "other.txt")
    assert there("new <b> & 'ä'")
    eventually("it has the focus", lambda: browser.focus() == "new <b> & 'ä'/", browser.focus)
    assert browser.is_marked()
    act(browser, "Rename: new <b> & 'ä'")
    says(browser, "Rename “new <b> & 'ä'”")
    browser.press("Escape")
    is_done(browser)


def a_file_gets_another_name(browser):
    browser.open(server.url + "/managed/?search=name")
    browser.mark()
    act(browser, "Rename: old name.tar.gz")
    selected = browser.value("document.querySelector('dialog input').value.slice(0,"
                             " document.querySelector('dialog input').selectionEnd)")
    assert selected == "old name.tar", selected
    answer(browser, "other.txt")
    says(browser, "there is “other.txt” already")
    browser.press("Escape")
    is_done(browser)
    eventually("the button again", lambda: browser.focus() == "Rename: old name.tar.gz", browser.focus)
    act(browser, "Rename: old name.tar.gz")
    answer(browser, "new? name#%41.txt")
    is_done(browser)
    browser.listed("new? name#%41.txt")
    assert there("new? name#%41.txt") and not there("old name.tar.gz")
    assert browser.is_marked()


def a_folder_gets_another_name(browser):
    browser.open(server.url + "/managed/")
    act(browser, "Rename: empty")
    answer(browser, "empty again")
    is_done(browser)
    eventually("it is renamed", lambda: "empty again/" in browser.names(), browser.names)
    assert there("empty again") and not there("empty")


def a_file_is_deleted_after_a_question(browser):
    browser.open(server.url + "/managed/")
    browser.mark()
    act(browser, "Delete: other.txt")
    says(browser, "Delete “other.txt”?")
    # What a hasty Enter hits deletes nothing.
    assert browser.focus() == "Cancel", browser.focus()
    question = ("dialog", "Delete “other.txt”?", "It cannot be brought back.")
    assert question in browser.accessible(), browser.accessible()
    browser.has_no_unnamed()
    browser.press("Enter")
    is_done(browser)
    assert there("other.txt")
    eventually("the button again", lambda: browser.focus() == "Delete: other.txt", browser.focus)
    browser.has_no_unnamed()
    act(browser, "Delete: other.txt")
    browser.click("dialog button", "Delete")
    is_done(browser)
    eventually("it is gone", lambda: "other.txt" not in browser.names(), browser.names)
    assert not there("other.txt")
    # The next row, or the last.
    eventually("the focus stays in the list", lambda: browser.focus() == browser.names()[-1], browser.focus)
    assert browser.is_marked()


def a_full_folder_is_deleted_by_its_name(browser):
    browser.open(server.url + "/managed/")
    act(browser, "Delete: full")
    browser.click("dialog button", "Delete")
    says(browser, "Delete “full” with all that is in it?")
    answer(browser, "ful")
    says(browser, "this is not its name")
    assert "alert" in [role for role, _, _ in browser.accessible()]
    assert there("full", "a.txt")
    browser.pictures("full")
    answer(browser, "full")
    is_done(browser)
    eventually("it is gone", lambda: "full/" not in browser.names(), browser.names)
    assert not there("full")
    act(browser, "Delete: empty again")
    browser.click("dialog button", "Delete")
    is_done(browser)
    eventually("it is gone, too", lambda: not there("empty again"))


def an_empty_folder_is_uploaded(browser):
    browser.open(server.url + "/managed/")
    browser.drop(os.path.join(FOLDER, "tree"))
    browser.wait_for_summary("2 uploaded")
    assert ["tree/hollow/deep/", "done", "an empty folder"] in browser.uploads(), browser.uploads()
    eventually("it is listed", lambda: "tree/" in browser.names(), browser.names)
    assert there("tree", "hollow", "deep") and there("tree", "a.txt")


def the_keyboard_does_it_all(browser):
    browser.open(server.url + "/managed/")
    browser.value("document.querySelector('#new-folder').focus()")
    browser.press("Enter")
    browser.type("by hand")
    browser.press("Enter")
    is_done(browser)
    eventually("it has the focus", lambda: browser.focus() == "by hand/", browser.focus)
    browser.press("Tab")
    browser.press("Tab")
    assert browser.focus() == "Delete: by hand", browser.focus()
    browser.press(" ")
    browser.press("Tab", shift=True)
    browser.press("Enter")
    is_done(browser)
    eventually("it is gone", lambda: not there("by hand"))
    # The next row: the one above leads up.
    eventually("the next row has the focus", lambda: browser.focus() == browser.names()[1], browser.focus)


def a_phone_shows_the_buttons(browser):
    browser.is_phone(True)
    browser.open(server.url + "/managed/")
    assert browser.value("document.documentElement.scrollWidth") <= 390
    # A row has a finger's height, and no line for the buttons alone.
    heights = browser.value("[...document.querySelectorAll('tr:has(td)')].map((row) => row.offsetHeight)")
    assert all(44 <= height <= 60 for height in heights), heights
    browser.has_no_unnamed()
    browser.click("[aria-label^='Rename: tree']")
    assert is_asked(browser)
    browser.press("Escape")
    browser.is_phone(False)


def all_tools_are_in_one_line(browser):
    browser.open(server.url + "/managed/")
    for width in [1000, 1400]:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1, mobile=False)
        height = browser.value("document.getElementById('tools').offsetHeight")
        assert height < 50, (width, height)
    browser.call("Emulation.clearDeviceMetricsOverride")


def a_server_that_only_grows_deletes_nothing(browser):
    growing = Server(SERVER, ROOT, "--manage", "--create-only")
    try:
        browser.open(growing.url + "/managed/")
        buttons = [name for role, name, _ in browser.accessible() if role == "button"]
        assert "Rename: tree" in buttons and "New folder" in buttons, buttons
        assert not any("Delete" in name for name in buttons), buttons
    finally:
        growing.kill()


PROGRAM, FOLDER, ROOT, SERVER = sys.argv[1:5]
PICTURES = sys.argv[5] if len(sys.argv) > 5 else None
server = Server(SERVER, ROOT, "--manage")
try:
    run_all(FilePage, PROGRAM, PICTURES, [
        a_folder_is_created,
        a_file_gets_another_name,
        a_folder_gets_another_name,
        a_file_is_deleted_after_a_question,
        a_full_folder_is_deleted_by_its_name,
        an_empty_folder_is_uploaded,
        the_keyboard_does_it_all,
        a_phone_shows_the_buttons,
        all_tools_are_in_one_line,
        a_server_that_only_grows_deletes_nothing,
    ])
finally:
    server.kill()
