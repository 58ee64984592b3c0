"""What schemathesis leaves out of the requests that it makes of openapi.json: what cannot be said together,
and long waits.
"""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    if query:
        if "wait" in query:
            query["wait"] = "0"
        if query.get("retry") == "never":
            query.pop("delay", None)
    return query


@schemathesis.hook
def map_case(context, case):
    # A property is a parameter or a field, not both.
    for name in list(case.query or {}):
        (case.headers or {}).pop("Queue-" + name.title(), None)
    return case
