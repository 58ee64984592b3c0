#!/usr/bin/env python3
"""Sends one message to the queue service in the text protocol, as the original client did.

Imitates: over TCP, connect, send the text and a line feed, close, without waiting for an answer;
over UDP, the same bytes in one datagram. With --file the bytes of the file go out as they are, all
of them, with no line feed and no regard for the server's limit; an empty file is an empty message
over UDP and a connection that says nothing over TCP.

Usage: queue_send.py HOST PORT TCP|UDP TEXT
       queue_send.py HOST PORT TCP|UDP --file FILE
Exit status: 0 sent, 1 not sent.
"""

import argparse
import os
import socket
import sys

TIMEOUT_SECS = 10


def send(host, port, socktype, message):
    kind = socket.SOCK_STREAM if socktype == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(TIMEOUT_SECS)
        if socktype == "TCP":
            sock.connect((host, port))
            sock.sendall(message)
        else:
            sock.sendto(message, (host, port))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("socktype", type=str.upper, choices=["TCP", "UDP"])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("text", nargs="?")
    what.add_argument("--file")
    args = parser.parse_args()

    try:
        if args.file is not None:
            with open(args.file, "rb") as file:
                message = file.read()
        else:
            message = os.fsencode(args.text) + b"\n"
        send(args.host, args.port, args.socktype, message)
    except OSError as error:
        print(f"queue_send: {error}", file=sys.stderr)
        return 1
    print(f"Sent: {len(message)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
