"""Sends messages over HTTP, each with a key, and again until it has the reply: lost connections do not matter.

Usage: queue_keys.py HOST PORT SENDERS EACH

It writes the body and the id of each message that was answered.
"""

import http.client
import json
import sys
import threading

HOST, PORT, SENDERS, EACH = sys.argv[1], *map(int, sys.argv[2:])
WRITING = threading.Lock()


def answered(connection, body):
    """The id of a message, or None if there is no reply to it."""
    fields = {"Queue-Key": f"key {body}"}
    try:
        connection.request("POST", "/queues/default/messages", body, fields)
        reply = connection.getresponse()
        said = json.load(reply)
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return None
    assert reply.status in (200, 201), (reply.status, said)
    return said["id"]


def send(sender):
    connection = http.client.HTTPConnection(HOST, PORT, timeout=10)
    for number in range(EACH):
        body = f"{sender}.{number}"
        while (message := answered(connection, body)) is None:
            pass
        with WRITING:
            print(body, message, flush=True)


SENDING = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
for one in SENDING:
    one.start()
for one in SENDING:
    one.join()
