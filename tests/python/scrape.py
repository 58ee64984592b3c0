"""Scrapes a page of metrics as Prometheus would: with the strict parser of its Python client."""

import sys
import urllib.request

try:
    from prometheus_client.openmetrics import parser
except ImportError:
    sys.exit(77)

with urllib.request.urlopen(sys.argv[1]) as reply:
    kind = reply.headers["Content-Type"]
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", kind
    page = reply.read().decode()
for family in parser.text_string_to_metric_families(page):
    print(family.type, family.name, len(family.samples))
