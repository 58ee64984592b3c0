"""Becomes a program that listening sockets are passed to (sd_listen_fds(3)).

pass_sockets.py KIND... -- PROGRAM ARGUMENT...

A KIND is tcp, all (all addresses), unix:PATH, udp, idle (bound and not listening) or file.
"""

import os
import socket
import sys
import tempfile

FIRST_FD = 3


def make(kind):
    if kind == "file":
        return tempfile.TemporaryFile()
    if kind.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX)
        made.bind(kind.removeprefix("unix:"))
    else:
        made = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        made.bind(("0.0.0.0" if kind == "all" else "127.0.0.1", 0))
    if kind not in ("udp", "idle"):
        made.listen(1024)
    return made


def become(sockets, command):
    """The last thing that a process does before it is the program."""
    # Out of the way of those that they become.
    copies = [os.dup(one.fileno()) for one in sockets]
    high = [os.dup2(copy, 100 + at) for at, copy in enumerate(copies)]
    for at, fd in enumerate(high):
        os.dup2(fd, FIRST_FD + at)
    os.closerange(FIRST_FD + len(high), 200)
    os.environ["LISTEN_FDS"] = str(len(high))
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execv(command[0], command)


def main():
    at = sys.argv.index("--")
    sockets = [make(kind) for kind in sys.argv[1:at]]
    become(sockets, sys.argv[at + 1 :])


if __name__ == "__main__":
    main()
