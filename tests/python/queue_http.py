"""The queue with Python's own http.client and urllib.

Usage: queue_http.py URL
"""

import http.client
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

URL = sys.argv[1]
HOST = urllib.parse.urlsplit(URL).netloc


def many_requests_share_a_connection():
    connection = http.client.HTTPConnection(HOST, timeout=30)
    connection.connect()
    socket = connection.sock
    for number in range(300):
        connection.request("POST", "/queues/jobs/messages", f"job {number}".encode())
        reply = connection.getresponse()
        assert reply.status == 201 and json.load(reply)["id"] > 0
    for number in range(300):
        connection.request("POST", "/queues/jobs/lease?seconds=60")
        reply = connection.getresponse()
        assert reply.read() == f"job {number}".encode(), number
        assert reply.headers["Queue-Attempt"] == "1"
        connection.request("DELETE", "/leases/" + reply.headers["Queue-Token"])
        assert json.load(connection.getresponse()) == {"messages": 1}
    connection.request("POST", "/queues/jobs/lease")
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (204, b"")
    assert connection.sock is socket, "it was another connection"
    connection.close()


def a_refusal_has_a_code():
    try:
        urllib.request.urlopen(URL + "/queues/a%20b/messages")
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert error.code == 400, error.code
        said = json.load(error)
        assert said["code"] == 1 and said["name"] == "BadRequest", said
        assert "'a b'" in said["error"], said


def chunks_are_one_message():
    connection = http.client.HTTPConnection(HOST, timeout=30)
    pieces = [bytes([number]) * number for number in range(1, 50)]
    connection.request("POST", "/queues/chunks/messages", iter(pieces), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().read().startswith(b'{"id":')
    connection.request("POST", "/queues/chunks/lease")
    assert connection.getresponse().read() == b"".join(pieces)
    connection.close()


def each_of_many_workers_gets_its_own():
    """Twenty that wait at once, and a hundred messages."""
    got, lock = [], threading.Lock()

    def work():
        connection = http.client.HTTPConnection(HOST, timeout=60)
        while True:
            connection.request("POST", "/queues/shared/lease?wait=30&seconds=60")
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == 200, (reply.status, body)
            connection.request("DELETE", "/leases/" + reply.headers["Queue-Token"])
            connection.getresponse().read()
            if body == b"end":
                return connection.close()
            with lock:
                got.append(body)

    workers = [threading.Thread(target=work) for _ in range(20)]
    for worker in workers:
        worker.start()
    connection = http.client.HTTPConnection(HOST, timeout=30)
    wanted = [f"message {number}".encode() for number in range(100)]
    for body in wanted + [b"end"] * len(workers):
        connection.request("POST", "/queues/shared/messages", body)
        assert connection.getresponse().read()
    connection.close()
    for worker in workers:
        worker.join(60)
    assert sorted(got) == sorted(wanted), len(got)


for test in [
    many_requests_share_a_connection,
    a_refusal_has_a_code,
    chunks_are_one_message,
    each_of_many_workers_gets_its_own,
]:
    started = time.monotonic()
    test()
    print(test.__name__, f"{time.monotonic() - started:.1f} s")
