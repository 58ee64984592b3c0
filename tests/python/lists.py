"""A folder of more names than are listed. URL is the server's root, in which stands that folder `many`."""

import json
import re
import sys
import urllib.request

NAMES = 100_000
PAGE = 1000
URL = sys.argv[1]
get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

listing = json.load(get(f"{URL}/many/?json"))
names = [entry["name"] for entry in listing["entries"]]
assert listing["complete"] is False
assert len(set(names)) == NAMES, len(set(names))
assert names == sorted(names)

for number in [1, 2, 51, 100]:
    page = get(f"{URL}/many/?page={number}").read().decode()
    on_page = re.findall(r'<td><a href="./(\d+)"', page)
    assert on_page == names[(number - 1) * PAGE:number * PAGE], (number, on_page[:1])
    assert "over 100,000 names" in page
    assert page.endswith("</html>\n")
page = get(f"{URL}/many/?search=9999").read().decode()
found = re.findall(r'<td><a href="./(\d+)"', page)
assert found == [name for name in names if "9999" in name], found

assert json.load(get(f"{URL}/plain/?json"))["complete"] is True
assert "over 100,000 names" not in get(f"{URL}/plain/").read().decode()
