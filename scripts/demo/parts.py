"""parts.py HOST PORT: uploads a file in two parts, and asks in between how much has arrived."""
import http.client, sys, urllib.parse

def ask(method, path, fields, body=None):
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
    connection.request(method, path, body, fields)
    reply = connection.getresponse()
    print(method, reply.status, "Upload-Offset:", reply.headers["Upload-Offset"], flush=True)
    return reply

def append(offset, body):
    fields = {"Content-Type": "application/partial-upload", "Upload-Offset": str(offset)}
    return ask("PATCH", place, fields | {"Upload-Complete": "?1"}, body)

begun = ask("POST", "/parts.txt", {"Upload-Complete": "?0"}, b"one part ")
place = urllib.parse.urljoin("/parts.txt", begun.headers["Location"])
ask("GET", "/parts.txt", {})
ask("HEAD", place, {})
append(3, b"and another")
append(9, b"and another")
