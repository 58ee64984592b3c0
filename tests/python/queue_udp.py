#!/usr/bin/env python3
"""Speaks the queue service's frames over UDP, from wherever it is run, padding what has to be.

Sends a message of 3000 bytes, receives it, asks how the queues are, and says `<<GET>>` in plain text.
Prints for each how long the request was, and how long the reply; a dash is no reply.

Usage: queue_udp.py HOST PORT
"""

import itertools
import os
import socket
import struct
import sys

TIMEOUT_SECS = 10
SILENCE_SECS = 0.5
BAD_REQUEST = 1


SESSION = os.urandom(16)
NUMBERS = itertools.count()


def datagram(kind, payload, padded_bytes=0):
    payload = SESSION + struct.pack(">Q", next(NUMBERS)) + bytes([kind]) + payload
    frame = struct.pack(">IB", len(payload) + 1, 0x10) + payload
    return frame.ljust(padded_bytes, b"\0")


def ask(sock, kind, payload):
    for padded_bytes in [0, 1200, 21836]:
        request = datagram(kind, payload, padded_bytes)
        sock.send(request)
        reply = sock.recv(65536)
        print(len(request), len(reply))
        assert reply[5:29] == request[5:29]
        if reply[29:31] != bytes([0x7F, BAD_REQUEST]):
            return reply[29], reply[30:]
    raise SystemExit("refused")


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    queue = b"\x07default"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_SECS)
        sock.connect((host, port))
        kind, _ = ask(sock, 0x01, queue + bytes(14) + b"x" * 3000)
        assert kind == 0x41, kind
        kind, payload = ask(sock, 0x02, b"\x01" + queue + bytes(4) + b"\x01")
        assert kind == 0x42 and payload[13:] == b"x" * 3000, kind
        kind, _ = ask(sock, 0x07, b"")
        assert kind == 0x47, kind
        sock.send(b"<<GET>>")
        sock.settimeout(SILENCE_SECS)
        try:
            print(7, len(sock.recv(65536)))
        except TimeoutError:
            print(7, "-")


if __name__ == "__main__":
    main()
