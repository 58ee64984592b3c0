"""A headless Chromium on the page of the queues, as a person would use it.

Usage: queue_page.py BROWSER URL MANY-URL [PICTURES]

MANY-URL is of a server with 10,000 queues. PICTURES is where screenshots go.
"""

import json
import sys
import time
import urllib.error
import urllib.request

from chromium import Browser, eventually, run_all

MARKUP = "<img src=x onerror=document.title='caught'><script>document.title='caught'</script>&amp;"


def ask(method, path, body=None, **fields):
    """Asks without the browser."""
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    request = urllib.request.Request(URL + path, body, fields, method=method)
    with urllib.request.urlopen(request) as reply:
        return reply.status, reply.headers, reply.read()


def send(queue, *bodies, **fields):
    for body in bodies:
        assert ask("POST", f"/queues/{queue}/messages", body, **fields)[0] == 201


def lease(queue):
    return ask("POST", f"/queues/{queue}/lease?seconds=600")[1]["Queue-Token"]


def fail(queue, reason, parameters=""):
    token = lease(queue)
    ask("POST", f"/leases/{token}/release{parameters}", reason)


def queues():
    stats = json.loads(ask("GET", "/queues")[2])
    return {queue["name"]: queue for queue in stats["queues"]}


def numbers(browser, queue):
    """The first five numbers of the row of a queue: ready to waiting."""
    return browser.value(
        f"[...(document.getElementById('queue-{queue}')?.cells ?? [])].slice(1, 6)"
        ".map((one) => Number(one.textContent))")


def bodies(browser):
    return browser.value("[...document.querySelectorAll('.body > bdi')].map((one) => one.textContent)")


def is_live(browser):
    eventually("it is live", lambda: "by themselves" in browser.text(), browser.text)


def the_numbers_change_by_themselves(browser):
    browser.open(URL + "/")
    assert "There is no queue yet" in browser.text(), browser.text()
    is_live(browser)
    send("jobs", b"one", b"two")
    eventually("a new row", lambda: numbers(browser, "jobs") == [2, 0, 0, 0, 0], browser.text)
    send("later", b"three", Queue_Delay="1h")
    eventually("another", lambda: numbers(browser, "later") == [0, 0, 1, 0, 0], browser.text)
    # What does not change stays where it is, and so does the focus.
    browser.value("document.querySelector('#queue-jobs a').focus()")
    token = lease("jobs")
    eventually("reserved", lambda: numbers(browser, "jobs") == [1, 1, 0, 0, 0], browser.text)
    assert browser.value("document.activeElement.textContent") == "jobs"
    ask("DELETE", f"/leases/{token}")
    eventually("gone", lambda: numbers(browser, "jobs") == [1, 0, 0, 0, 0], browser.text)
    ask("DELETE", "/queues/later/messages")
    eventually("no row", lambda: numbers(browser, "later") == [], browser.text)


def no_message_becomes_markup(browser):
    send("odd", MARKUP.encode(), b"\xff\x00\x1b[31m\xe2\x80\xae tab\there", "x".encode() * 300)
    fail("odd", MARKUP.encode())
    browser.open(URL + "/?queue=odd")
    shown = bodies(browser)
    assert shown[0].startswith("\\xff\\u{0}\\u{1b}[31m\\u{202e} tab\\there"), shown
    assert shown[1] == "x" * 200 + "…", shown
    assert shown[2] == MARKUP, shown
    reason = browser.value("document.querySelector('.reason bdi').textContent")
    assert reason == MARKUP, reason
    assert browser.value("document.title") == "odd"
    assert browser.value("document.images.length") == 0
    assert "all 300 bytes" in browser.text()


def a_failed_job_says_why_and_is_kicked(browser):
    for number, reason in [
        (1, b"exit status: 1: cp: cannot stat '/data/in/0143.csv': No such file or directory"),
        (2, b"signal: 9: killed after 10m, its time limit"),
        (3, b"exit status: 65: line 12: the sum is wrong\nexpected 1,204.00, found 1,240.00"),
    ]:
        send("nightly", f"convert /data/in/{number:04}.csv\n".encode(), Queue_Key=f"job-{number}")
        fail("nightly", reason, "?retry=never")
    send("nightly", b"convert /data/in/0004.csv\n", Queue_Priority="5", Queue_Expires="2h")
    send("nightly", b"convert /data/in/0005.csv\n", Queue_Delay="5m")
    lease("nightly")
    browser.open(URL + "/?queue=nightly")
    is_live(browser)
    browser.click("nav a", "dead 3")
    eventually("the dead", lambda: len(bodies(browser)) == 3, browser.text)
    assert "signal: 9" in browser.text(), browser.text()
    browser.pictures("queue-dead")
    browser.click("[aria-label^='Kick message']", "Kick")
    eventually("one is kicked", lambda: queues()["nightly"]["dead"] == 2, browser.text)
    eventually("the rest", lambda: len(bodies(browser)) == 2, browser.text)
    browser.click("button", "Kick 2 dead")
    eventually("all are kicked", lambda: queues()["nightly"]["ready"] == 3, browser.text)
    browser.click("nav a", "reserved 1")
    eventually("the lease", lambda: "lease, 9 min left" in browser.text(), browser.text)
    browser.click("[aria-label^='Release message']")
    eventually("it is free", lambda: queues()["nightly"]["reserved"] == 0, browser.text)


def a_queue_is_paused_and_resumed(browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(URL + "/?queue=nightly")
    browser.click("button", "Pause")
    eventually("paused", lambda: queues()["nightly"]["is_paused"], browser.text)
    eventually("it says so", lambda: "paused" in browser.text(), browser.text)
    browser.pictures("queue")
    browser.click("button", "Resume")
    eventually("resumed", lambda: not queues()["nightly"]["is_paused"], browser.text)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


def what_is_gone_is_asked_for_twice(browser):
    browser.open(URL + "/?queue=nightly")
    browser.click("[aria-label^='Delete message']")
    eventually("the question", lambda: "Delete this message?" in browser.text(), browser.text)
    browser.pictures("queue-ask")
    browser.click("a", "No")
    eventually("back", lambda: "nightly" == browser.value("document.title"), browser.text)
    assert queues()["nightly"]["ready"] == 4
    browser.click("[aria-label^='Delete message']")
    eventually("the question", lambda: "Delete this message?" in browser.text(), browser.text)
    browser.click("button", "Yes, delete it")
    eventually("one is gone", lambda: queues()["nightly"]["ready"] == 3, browser.text)
    eventually("back", lambda: "nightly" == browser.value("document.title"), browser.text)
    browser.click("a", "Purge")
    eventually("the question", lambda: "that nobody has reserved?" in browser.text(), browser.text)
    assert queues()["nightly"]["ready"] == 3
    browser.click("button", "Yes, delete all of them")
    eventually("all are gone", lambda: "nightly" not in queues(), browser.text)
    eventually("back", lambda: browser.value("document.title") == "Queues", browser.text)


def the_server_is_drained(browser):
    browser.click("a", "Drain")
    eventually("the question", lambda: "in all queues?" in browser.text(), browser.text)
    browser.click("button", "Yes, refuse them")
    eventually("it says so", lambda: "Draining: new messages are refused" in browser.text())
    try:
        ask("POST", "/queues/jobs/messages", b"no")
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert (error.code, json.load(error)["name"]) == (503, "Draining")
    browser.pictures("queues-draining")
    browser.click("button", "Accept them again")
    eventually("it does not say so", lambda: "Draining" not in browser.text(), browser.text)
    send("jobs", b"yes")


def a_list_of_messages_has_pages(browser):
    send("long", *(f"number {number}".encode() for number in range(120)))
    browser.open(URL + "/?queue=long")
    assert bodies(browser)[0] == "number 0" and len(bodies(browser)) == 50
    browser.click("a", "Next")
    eventually("the next", lambda: bodies(browser)[:1] == ["number 50"], browser.text)
    browser.click("a", "Next")
    eventually("the last", lambda: bodies(browser)[:1] == ["number 100"], browser.text)
    assert len(bodies(browser)) == 20
    browser.click("a", "First")
    eventually("the first", lambda: bodies(browser)[:1] == ["number 0"], browser.text)


def ten_thousand_queues_are_usable(browser):
    def rows():
        return browser.value("document.querySelectorAll('.queues tbody tr').length")
    started = time.monotonic()
    browser.open(MANY + "/")
    is_live(browser)
    print(f"open and live: {time.monotonic() - started:.2f} s")
    assert rows() == 100, rows()
    browser.pictures("queues-many")
    browser.click("a", "Next")
    eventually("the next", lambda: browser.value(
        "document.querySelector('.queues tbody tr')?.id") == "queue-queue-00100", browser.text)
    browser.value("document.querySelector('[name=q]').focus()")
    browser.call("Input.insertText", text="0999")
    browser.click("button", "Search")
    eventually("found", lambda: rows() == 11, browser.text)
    is_live(browser)
    browser.click("a", "queue-09990")
    eventually("its page", lambda: bodies(browser) == ["message"], browser.text)


def a_phone_shows_all_and_a_finger_hits_it(browser):
    browser.is_phone(True)
    send("phone", b"y" * 300, Queue_Priority="3")
    fail("phone", b"z" * 300)
    for path in ["/", "/?queue=phone", "/?queue=odd", "/?queue=phone&ask=purge", "/?queue=none"]:
        browser.open(URL + path)
        width = browser.value("document.documentElement.scrollWidth")
        assert width <= 390, (path, width)
        small = browser.value(
            "[...document.querySelectorAll('a, button, input')].filter((one) => one.offsetParent)"
            ".map((one) => [one.outerHTML, one.getBoundingClientRect().height])"
            ".filter(([, height]) => height < 44)")
        assert small == [], (path, small)
    browser.is_phone(False)


def all_has_a_name_for_who_hears_it(browser):
    for path in ["/", "/?queue=long", "/?queue=long&ask=purge"]:
        browser.open(URL + path)
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        for node in nodes:
            role = node.get("role", {}).get("value")
            if role in ["button", "link", "searchbox", "textbox", "columnheader", "rowheader"]:
                assert node["name"]["value"].strip(), (path, node)


def a_page_says_when_the_server_does_not_answer(browser):
    browser.open(URL + "/")
    is_live(browser)
    browser.call("Network.setBlockedURLs", urls=["*"])
    browser.is_offline(True)
    ask("POST", "/queues/jobs/messages", b"meanwhile")
    browser.is_offline(False)
    browser.call("Network.setBlockedURLs", urls=[])
    want = queues()["jobs"]["ready"]
    eventually("the numbers", lambda: numbers(browser, "jobs")[0] == want, browser.text)


PROGRAM, URL, MANY = sys.argv[1:4]
run_all(Browser, PROGRAM, sys.argv[4] if len(sys.argv) > 4 else None, [
    the_numbers_change_by_themselves,
    no_message_becomes_markup,
    a_failed_job_says_why_and_is_kicked,
    a_queue_is_paused_and_resumed,
    what_is_gone_is_asked_for_twice,
    the_server_is_drained,
    a_list_of_messages_has_pages,
    ten_thousand_queues_are_usable,
    a_phone_shows_all_and_a_finger_hits_it,
    all_has_a_name_for_who_hears_it,
    a_page_says_when_the_server_does_not_answer,
])
