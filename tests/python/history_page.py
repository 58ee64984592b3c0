"""A headless Chromium on the page of the history, as a person would use it.

Usage: history_page.py BROWSER URL [PICTURES]

PICTURES is where screenshots go.
"""

import http.client
import json
import sys
import threading
import urllib.parse
import urllib.request

from chromium import Browser, eventually, run_all

MARKUP = "<img src=x onerror=document.title='caught'><script>document.title='caught'</script>&amp;"


def note(user, *texts):
    """Adds notes without the browser."""
    fields = {"Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(URL).netloc)
    for text in texts:
        form = urllib.parse.urlencode({"user": user, "text": text})
        connection.request("POST", "/notes", form, fields)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (303, b"Noted.\n"), reply.status
    connection.close()


def lines():
    return json.load(urllib.request.urlopen(URL + "/history?last=0"))


def texts(browser):
    return browser.value("[...document.querySelectorAll('td:nth-child(4)')].map((one) => one.textContent)")


def fill(browser, selector, text):
    browser.value(f"document.querySelector({json.dumps(selector)}).focus()")
    browser.call("Input.insertText", text=text)


def is_live(browser):
    eventually("it is live", lambda: "by themselves" in browser.text(), browser.text)


def a_note_is_written_and_seen(browser):
    browser.open(URL + "/")
    assert browser.value("document.styleSheets[0].cssRules.length") > 20
    fill(browser, "[action=notes] [name=user]", "alice")
    fill(browser, "[action=notes] [name=text]", MARKUP)
    browser.click("button", "Add the note")
    eventually("the note", lambda: MARKUP in texts(browser), browser.text)
    assert browser.value("document.title") == "History"
    assert browser.value("document.querySelector('[action=notes] [name=user]').value") == "alice"
    assert lines()[0]["text"] == "note " + MARKUP


def new_lines_appear_and_deleted_ones_go(browser):
    browser.open(URL + "/")
    is_live(browser)
    note("bob", MARKUP + "again")
    eventually("a new line", lambda: texts(browser)[:1] == [MARKUP + "again"], browser.text)
    assert browser.value("document.title") == "History"
    line = lines()[0]
    form = {"user": "bob", "sequence": line["sequence"], "time": line["time"], "text": line["text"]}
    urllib.request.urlopen(URL + "/delete", urllib.parse.urlencode(form).encode()).read()
    eventually("it is gone", lambda: MARKUP + "again" not in texts(browser), browser.text)


def only_the_end_of_a_flood_is_kept(browser):
    browser.open(URL + "/")
    is_live(browser)
    numbers = [f"number {number}" for number in range(300)]
    note("carol", *numbers[:150])
    flood = threading.Thread(target=note, args=("carol", *numbers[150:]))
    flood.start()
    browser.pictures("history-flood")
    flood.join()
    eventually("the last", lambda: texts(browser)[:1] == ["number 299"], browser.text)
    eventually("200 rows", lambda: len(texts(browser)) == 200, browser.text)
    browser.click("#older")
    eventually("older ones", lambda: MARKUP in texts(browser), browser.text)
    assert texts(browser)[:1] == ["number 99"], texts(browser)[0]
    browser.click("a", "Newest")
    eventually("newer ones", lambda: texts(browser)[:1] == ["number 299"], browser.text)


def a_search_shows_what_it_finds_and_follows_it(browser):
    browser.open(URL + "/")
    fill(browser, "[role=search] [name=q]", "number 29")
    browser.click("button", "Search")
    eventually("found", lambda: len(texts(browser)) == 11, browser.text)
    is_live(browser)
    note("carol", "something else")
    note("carol", "number 29 again")
    eventually("one more", lambda: texts(browser)[:1] == ["number 29 again"], browser.text)
    assert len(texts(browser)) == 12, texts(browser)
    browser.click("a", "Show all")
    eventually("all", lambda: len(texts(browser)) == 200, browser.text)


def a_line_is_deleted_when_that_is_confirmed(browser):
    note("dora", "mistake")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(URL + "/?user=dora")
    browser.pictures("history")
    before = len(lines())
    browser.click("td a")
    eventually("the question", lambda: "for everybody?" in browser.text(), browser.text)
    assert texts(browser) == ["mistake"], texts(browser)
    browser.pictures("history-delete")
    browser.click("a", "No, keep it")
    eventually("back", lambda: len(texts(browser)) == 200, browser.text)
    browser.click("td a")
    eventually("the question", lambda: "for everybody?" in browser.text(), browser.text)
    assert len(lines()) == before
    browser.click("button", "Yes, delete it")
    eventually("it is gone", lambda: "mistake" not in browser.text()
               and len(texts(browser)) == 200, browser.text)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def a_phone_shows_all_and_a_finger_hits_it(browser):
    browser.is_phone(True)
    browser.open(URL + "/")
    assert browser.value("document.documentElement.scrollWidth") <= 390
    small = browser.value(
        "[...document.querySelectorAll('a, button, input')].filter((one) => one.offsetParent)"
        ".map((one) => [one.outerHTML, one.getBoundingClientRect().height])"
        ".filter(([, height]) => height < 44)")
    assert small == [], small
    browser.is_phone(False)


PROGRAM, URL = sys.argv[1:3]
run_all(Browser, PROGRAM, sys.argv[3] if len(sys.argv) > 3 else None, [
    a_note_is_written_and_seen,
    new_lines_appear_and_deleted_ones_go,
    only_the_end_of_a_flood_is_kept,
    a_search_shows_what_it_finds_and_follows_it,
    a_line_is_deleted_when_that_is_confirmed,
    a_phone_shows_all_and_a_finger_hits_it,
])
