#!/usr/bin/env python3
"""Sends one line to the history service and prints the reply, as the original client did.

Imitates: connect, send `USER`, `USER 1 N`, `USER 2` or `USER 3` and a line feed, keep the sending
side open, and call recv once; what that one call returned is the whole reply. The original could
not be sent more than one buffer. With --all the reply is read until the server closes instead.

Usage: history_client.py HOST PORT LINE [--all]
Exit status: 0 a reply was printed, 1 there was none.
"""

import argparse
import os
import socket
import sys

TIMEOUT_SECS = 10
BUFFER_BYTES = 65536


def ask(host, port, line, read_all):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT_SECS)
        sock.connect((host, port))
        sock.sendall(line + b"\n")
        pieces = [sock.recv(BUFFER_BYTES)]
        while read_all and pieces[-1]:
            pieces.append(sock.recv(BUFFER_BYTES))
        return b"".join(pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("line")
    parser.add_argument("--all", action="store_true", help="read until the server closes")
    args = parser.parse_args()

    try:
        reply = ask(args.host, args.port, os.fsencode(args.line), args.all)
    except OSError as error:
        print(f"history_client: {error}", file=sys.stderr)
        return 1
    if not reply:
        print("history_client: the server closed without a reply", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(reply)
    return 0


if __name__ == "__main__":
    sys.exit(main())
