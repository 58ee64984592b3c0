"""A TLS server that sends half a story and closes the connection without saying that it has ended.

usage: tls_cut.py CERT KEY; prints its port
"""

import os
import socket
import ssl
import sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    while True:
        connection, _ = listener.accept()
        stream = context.wrap_socket(connection, server_side=True)
        stream.recv(65536)
        stream.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf a story")
        os.close(stream.detach())
