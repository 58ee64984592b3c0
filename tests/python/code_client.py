#!/usr/bin/env python3
"""Asks the code service for codes and sends messages, as the original Python client did.

Imitates: every body is `str(dict)`, a Python literal and not JSON; the reply is expected to be a
bare dict with no status line, which http.client reports as a BadStatusLine whose text is the dict.
A server run without --python-replies answers in proper HTTP; then the JSON body is read instead.
Both kinds are understood, and the output says which was seen.

Usage: code_client.py HOST CODE_PORT MESSAGE_PORT COUNT
Exit status: 0 every client got its code and had its text taken, 1 at least one did not.
"""

import argparse
import ast
import http.client
import json
import sys
import uuid

TIMEOUT_SECS = 10


class Failed(Exception):
    """The service refused, or what it said is not a reply of either kind."""


def exchange(host, port, fields):
    """Posts `fields` and returns the reply as (dict, how it came)."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECS)
    try:
        connection.request("POST", "/", body=str(fields).encode("utf-8"))
        try:
            body = connection.getresponse().read()
            how, reply = "HTTP with JSON", json.loads(body)
        except http.client.RemoteDisconnected:
            # A BadStatusLine as well, but one without a line to read.
            raise Failed("the server closed without a reply") from None
        except http.client.BadStatusLine as bare:
            how, reply = "bare dict", ast.literal_eval(bare.line)
    except (OSError, http.client.HTTPException) as error:
        raise Failed(str(error) or type(error).__name__) from None
    except (ValueError, SyntaxError) as error:
        raise Failed(f"reply not understood: {error}") from None
    finally:
        connection.close()

    if not isinstance(reply, dict) or "success" not in reply:
        raise Failed(f"reply not understood: {reply!r}")
    if reply["success"] is not True:
        raise Failed(f"refused ({how}): {reply.get('error')}")
    return reply, how


class Client:
    """One UUID and, once it was asked for, the code that belongs to it."""

    def __init__(self, host, code_port, message_port):
        self.host = host
        self.code_port = code_port
        self.message_port = message_port
        self.uuid = str(uuid.uuid4())
        self.unique = None

    def request_unique(self):
        reply, how = exchange(self.host, self.code_port, {"uuid": self.uuid})
        unique = reply.get("unique")
        if not isinstance(unique, str):
            raise Failed(f"no code in the reply: {reply!r}")
        self.unique = unique
        return how

    def send_text(self, text):
        fields = {"uuid": self.uuid, "unique": self.unique, "text": text}
        _, how = exchange(self.host, self.message_port, fields)
        return how


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("code_port", type=int)
    parser.add_argument("message_port", type=int)
    parser.add_argument("count", type=int)
    args = parser.parse_args()

    clients = [
        Client(args.host, args.code_port, args.message_port) for _ in range(args.count)
    ]
    failed = 0
    for index, client in enumerate(clients):
        try:
            how = client.request_unique()
            print(f"client {index}: {client.uuid} got code {client.unique} ({how})")
            how = client.send_text(f"Text insertion for index {index}")
            print(f"client {index}: text stored ({how})")
        except Failed as error:
            print(f"client {index}: failed: {error}")
            failed += 1
    print(f"{args.count - failed} of {args.count} clients succeeded")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
