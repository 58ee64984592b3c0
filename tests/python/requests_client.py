"""The file server through the requests package. Usage: requests_client.py URL

Exits with 77 if there is no such package.
"""

import io
import sys

try:
    import requests
except ImportError:
    sys.exit(77)

URL = sys.argv[1]
session = requests.Session()
session.trust_env = False

put = session.put(f"{URL}/new/a b.txt", data=b"0123456789")
assert (put.status_code, put.text) == (201, "File received and saved\n"), put.text
got = session.get(f"{URL}/new/a b.txt")
assert (got.content, got.headers["Accept-Ranges"]) == (b"0123456789", "bytes")
part = session.get(f"{URL}/new/a b.txt", headers={"Range": "bytes=2-4", "If-Range": got.headers["ETag"]})
assert (part.status_code, part.content) == (206, b"234")
same = session.get(f"{URL}/new/a b.txt", headers={"If-None-Match": got.headers["ETag"]})
assert (same.status_code, same.content) == (304, b"")
assert session.head(f"{URL}/new/a b.txt").headers["Content-Length"] == "10"

# An iterator is sent in chunks.
chunked = session.put(f"{URL}/new/chunked", data=iter([b"one ", b"two ", b"three"]))
assert chunked.status_code == 201
assert session.get(f"{URL}/new/chunked").content == b"one two three"

form = session.post(f"{URL}/new/", files=[("file", ("f1", io.BytesIO(b"1"))), ("file", ("f2", b"2"))])
assert (form.status_code, form.history[0].status_code) == (200, 303)
listing = session.get(f"{URL}/new", headers={"Accept": "application/json"})
assert sorted(entry["name"] for entry in listing.json()["entries"]) == ["a b.txt", "chunked", "f1", "f2"]

refused = session.put(f"{URL}/new/f1", data=b"x", headers={"If-None-Match": "*"})
assert refused.status_code == 412
assert session.get(f"{URL}/gone").status_code == 404
print("requests works")
