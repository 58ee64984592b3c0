"""A folder of more names than are listed. URL is the server's root, in which stands that folder `many`."""

import json
import sys
import urllib.request

NAMES = 100_000
URL = sys.argv[1]
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

listing = json.load(get(f"{URL}/many/?json"))
names = [entry["name"] for entry in listing["entries"]]
assert listing["complete"] is False
assert len(set(names)) == NAMES, len(set(names))
assert names == sorted(names)

page = get(f"{URL}/many/").read().decode()
assert page.count('<a href="./') == NAMES, page.count('<a href="./')
assert "over 100,000 names" in page
assert page.endswith("</html>\n")

assert json.load(get(f"{URL}/plain/?json"))["complete"] is True
assert "over 100,000 names" not in get(f"{URL}/plain/").read().decode()
