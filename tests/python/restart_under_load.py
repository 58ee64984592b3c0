"""Holds listening sockets, and restarts a server again and again while clients ask it.

restart_under_load.py KINDS REQUEST ANSWER RESTARTS PROGRAM ARGUMENT...

KINDS are those of pass_sockets.py, with commas; REQUEST and ANSWER are in hexadecimal. Each client makes a
connection, sends the REQUEST, and reads what begins with the ANSWER. None tries anything twice.
"""

import os
import signal
import socket
import sys
import threading

from pass_sockets import become, make

CLIENTS = 4
PATIENCE = 60
# At least this many answers come between two restarts.
ANSWERS_PER_SERVER = 20


class Load:
    def __init__(self, listener, request, answer):
        self.family, self.address = listener.family, listener.getsockname()
        self.request, self.answer = request, answer
        self.answers, self.failures = 0, []
        self.is_over = False
        self.changed = threading.Condition()

    def ask(self):
        with socket.socket(self.family) as client:
            client.settimeout(PATIENCE)
            client.connect(self.address)
            client.sendall(self.request)
            client.shutdown(socket.SHUT_WR)
            reply = b""
            while piece := client.recv(65536):
                reply += piece
        # Behind its answer, a connection may be told that the server stops. A refusal in text has this word.
        if not reply.startswith(self.answer) or b"Error" in reply:
            raise ValueError(f"reply {reply!r}")

    def run(self):
        while not self.is_over:
            try:
                self.ask()
                failure = None
            except Exception as error:
                failure = repr(error)
            with self.changed:
                self.answers += 1
                if failure:
                    self.failures.append(failure)
                self.changed.notify_all()

    def wait_for(self, more):
        with self.changed:
            wanted = self.answers + more
            if not self.changed.wait_for(lambda: self.answers >= wanted, PATIENCE):
                raise TimeoutError(f"{self.answers} answers, {wanted} wanted")


def start(sockets, command):
    pid = os.fork()
    if pid == 0:
        become(sockets, command)
    return pid


def main():
    kinds, request, answer, restarts, *command = sys.argv[1:]
    sockets = [make(kind) for kind in kinds.split(",")]
    server = start(sockets, command)
    load = Load(sockets[0], bytes.fromhex(request), bytes.fromhex(answer))
    clients = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(int(restarts)):
            load.wait_for(ANSWERS_PER_SERVER)
            os.kill(server, signal.SIGTERM)
            _, status = os.waitpid(server, 0)
            if status != 0:
                load.failures.append(f"the server's status is {status}")
            server = start(sockets, command)
        load.wait_for(ANSWERS_PER_SERVER)
    finally:
        load.is_over = True
        for client in clients:
            client.join()
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)
    print(f"{load.answers} answers, {len(load.failures)} failures", *load.failures[:9], sep="\n")


if __name__ == "__main__":
    main()
