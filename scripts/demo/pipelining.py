"""pipelining.py HOST PORT N: sends N messages in one write, and reads the N replies."""
import socket, struct, sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
requests = b""
for number in range(count):
    # The queue's name, no properties, the body; in front the length and the kind.
    fields = b"\x07default" + bytes(14) + str(number).encode()
    requests += struct.pack(">IB", 1 + len(fields), 0x01) + fields

with socket.create_connection((host, port), 30) as connection, connection.makefile("rb") as replies:
    connection.sendall(requests)
    ids = []
    for _ in range(count):
        length, kind = struct.unpack(">IB", replies.read(5))
        assert (length, kind) == (9, 0x41), "not Stored"
        ids.append(struct.unpack(">Q", replies.read(8))[0])
order = "in order" if ids == sorted(ids) else "not in order"
print(f"{len(requests)} bytes in one write, {count} replies, {order}")
