"""Forms with files in them, by the requests and the email packages. Usage: forms.py URL

Exits with 77 if there is no requests package.
"""

import email.mime.multipart
import email.mime.text
import email.policy
import http.client
import sys
import urllib.parse

try:
    import requests
except ImportError:
    sys.exit(77)

URL = sys.argv[1]
SAVED = "File received and saved\n"
session = requests.Session()
session.trust_env = False
folders = 0


def check(want, reply):
    """Checks that a form was taken, and made these files, each of which holds its own name."""
    status, text, folder = reply
    assert (status, text) == (303, SAVED), (status, text)
    listing = session.get(f"{URL}{folder}?json").json()
    names = {entry["name"]: entry["href"] for entry in listing["entries"]}
    assert sorted(names) == sorted(want), (sorted(names), want)
    for name, href in names.items():
        got = session.get(urllib.parse.urljoin(f"{URL}{folder}", href)).content
        assert got == name.encode(), (name, got)


def new_folder():
    global folders
    folders += 1
    return f"/python/{folders}/"


def by_requests(files):
    folder = new_folder()
    reply = session.post(URL + folder, files=files, allow_redirects=False)
    return reply.status_code, reply.text, folder


def by_email(parts, policy):
    """A form as the email package writes it."""
    form = email.mime.multipart.MIMEMultipart("form-data", policy=policy)
    for part in parts:
        form.attach(part)
    head, body = form.as_bytes(policy=policy.clone(linesep="\r\n")).split(b"\r\n\r\n", 1)
    return post(form["Content-Type"], body)


def post(content_type, body):
    folder = new_folder()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(URL).netloc, timeout=60)
    connection.request("POST", folder, body, {"Content-Type": " ".join(content_type.split())})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), folder


def part(name, policy):
    part = email.mime.text.MIMEText(name, "plain", "utf-8", policy=policy)
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = "8bit"
    part.set_payload(name.encode().decode("ascii", "surrogateescape"))
    part.add_header("Content-Disposition", "form-data", name="file", filename=name)
    return part


names = ["plain.txt", "say \"hi\".txt", "naïve €.txt", "a=b; c.txt", "100%.txt"]
check(names, by_requests([("file", (name, name.encode())) for name in names]))
check(["b.txt"], by_requests([("file", ("a\\b.txt", b"b.txt"))]))
check(["two\r\nlines"], by_requests([("file", ("two\r\nlines", b"two\r\nlines"))]))

# What urllib3 wrote until 2018, and what .NET writes.
for parameters in [
    "filename*=utf-8''na%C3%AFve.txt",
    "filename=\"=?utf-8?B?bmHDr3ZlLnR4dA==?=\"; filename*=utf-8''na%C3%AFve.txt",
]:
    body = ("--b\r\nContent-Disposition: form-data; name=file; " + parameters +
            "\r\n\r\nnaïve.txt\r\n--b--\r\n").encode()
    check(["naïve.txt"], post("multipart/form-data; boundary=b", body))

# The email package folds long fields, and cuts long names that are not ASCII in pieces.
names += ["long " * 30 + ".txt", "länger " * 20 + ".txt"]
for policy in [email.policy.compat32, email.policy.HTTP, email.policy.SMTP]:
    check(names, by_email([part(name, policy) for name in names], policy))

# What is encoded would be kept encoded.
encoded = email.mime.text.MIMEText("naïve", "plain", "utf-8")
encoded.add_header("Content-Disposition", "form-data", name="file", filename="a.txt")
status, text, folder = by_email([encoded], email.policy.HTTP)
assert (status, "Content-Transfer-Encoding" in text) == (400, True), (status, text)
print("forms work")
