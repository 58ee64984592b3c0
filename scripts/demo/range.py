"""range.py HOST PORT PATH RANGE: gets part of a file."""
import http.client, sys

connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
connection.request("GET", sys.argv[3], headers={"Range": sys.argv[4]})
print(connection.getresponse().read().decode())
