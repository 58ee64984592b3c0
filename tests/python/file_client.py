#!/usr/bin/env python3
"""Fetches one file and stores another over one connection, as the original file client did.

Imitates: no HTTP library, just bytes on a socket. `GET /path HTTP/1.1` with a Host field, the head
read up to its empty line and the body by its Content-Length; then, on the same connection, a `POST`
with a Content-Length and the file behind it. Both status lines are printed.

Usage: file_client.py HOST PORT GET_PATH OUT_FILE POST_FILE POST_PATH
Exit status: 0 both were answered 200 and the fetched file was saved, 1 anything else.
"""

import argparse
import os
import socket
import sys

TIMEOUT_SECS = 10
BUFFER_BYTES = 65536
HEAD_BYTES_MAX = 65536


class BadReply(Exception):
    """What came back is not the HTTP this client knows."""


class Connection:
    """A socket, and the bytes it gave that no reply has used yet."""

    def __init__(self, host, port):
        self.host_field = f"{host}:{port}".encode("ascii")
        self.unread = b""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(TIMEOUT_SECS)
            self.sock.connect((host, port))
        except OSError:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def get(self, path):
        """Returns the status line and the body."""
        self.sock.sendall(self.head(b"GET", path) + b"\r\n")
        return self.read_reply()

    def post(self, path, body):
        """Returns the status line and the body of the answer."""
        length = b"Content-Length: %d\r\n" % len(body)
        self.sock.sendall(self.head(b"POST", path) + length + b"\r\n" + body)
        return self.read_reply()

    def head(self, method, path):
        target = b"/" + os.fsencode(path.lstrip("/"))
        return method + b" " + target + b" HTTP/1.1\r\nHost: " + self.host_field + b"\r\n"

    def read_more(self):
        piece = self.sock.recv(BUFFER_BYTES)
        if not piece:
            raise BadReply("the server closed in the middle of a reply")
        self.unread += piece

    def read_reply(self):
        while b"\r\n\r\n" not in self.unread:
            if len(self.unread) > HEAD_BYTES_MAX:
                raise BadReply("the head of the reply has no end")
            self.read_more()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")

        status_line, *fields = head.decode("latin-1").split("\r\n")
        length = None
        for field in fields:
            name, _, value = field.partition(":")
            if name.lower() == "content-length":
                length = value.strip()
        if length is None or not length.isdigit():
            raise BadReply(f"no usable Content-Length after '{status_line}'")

        while len(self.unread) < int(length):
            self.read_more()
        body, self.unread = self.unread[: int(length)], self.unread[int(length) :]
        return status_line, body


def is_ok(status_line):
    version, _, rest = status_line.partition(" ")
    return version.startswith("HTTP/1.") and rest.split(" ")[0] == "200"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("get_path")
    parser.add_argument("out_file")
    parser.add_argument("post_file")
    parser.add_argument("post_path")
    args = parser.parse_args()

    try:
        with open(args.post_file, "rb") as file:
            upload = file.read()
        with Connection(args.host, args.port) as connection:
            got, download = connection.get(args.get_path)
            print(f"GET: {got}", flush=True)
            if is_ok(got):
                with open(args.out_file, "wb") as file:
                    file.write(download)
            posted, _ = connection.post(args.post_path, upload)
            print(f"POST: {posted}")
    except (OSError, BadReply) as error:
        print(f"file_client: {error}", file=sys.stderr)
        return 1
    return 0 if is_ok(got) and is_ok(posted) else 1


if __name__ == "__main__":
    sys.exit(main())
