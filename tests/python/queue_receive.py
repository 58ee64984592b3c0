#!/usr/bin/env python3
"""Takes one message from the queue service in the text protocol, as the original client did.

Imitates: send `<<GET>>` and nothing after it, keep the sending side open, and call recv(3000) once,
over TCP as over UDP. Whatever that one call returned is the message, byte for byte on standard
output, and so is the sentence for an empty queue: the text protocol cannot tell the two apart.

Usage: queue_receive.py HOST PORT TCP|UDP
Exit status: 0 the server answered, 1 it did not.
"""

import argparse
import socket
import sys

TIMEOUT_SECS = 10
MESSAGE_BYTES_MAX = 3000


def receive(host, port, socktype):
    kind = socket.SOCK_STREAM if socktype == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.settimeout(TIMEOUT_SECS)
        # A connected datagram socket also hears at once when nobody listens on the port.
        sock.connect((host, port))
        sock.sendall(b"<<GET>>")
        return sock.recv(MESSAGE_BYTES_MAX)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("socktype", type=str.upper, choices=["TCP", "UDP"])
    args = parser.parse_args()

    try:
        message = receive(args.host, args.port, args.socktype)
    except OSError as error:
        print(f"queue_receive: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
