"""Compares fleet/openapi.yaml with the routes of the server, and real answers with its schemas. Called by tests/api/openapi.rs."""

import json, re, sys, yaml, jsonschema
spec = yaml.safe_load(open(sys.argv[1]))
given = json.load(sys.stdin)
described = {(method.upper(), path, operation["x-role"])
             for path, operations in spec["paths"].items() for method, operation in operations.items()}
routed = {tuple(route) for route in given["routes"]}
problems = [f"not described: {it}" for it in sorted(routed - described)]
problems += [f"no such route: {it}" for it in sorted(described - routed)]

def resolve(node):
    while "$ref" in node:
        target = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node

def template(path):
    # The one with the fewest places, for a fixed word is meant before any.
    fits = [it for it in spec["paths"] if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", it), path)]
    return min(fits, key=lambda it: it.count("{"), default=None)

checked = set()
for exchange in given["exchanges"]:
    path = template(exchange["path"])
    operation = spec["paths"].get(path, {}).get(exchange["method"].lower())
    if operation is None:
        continue
    responses = operation["responses"]
    response = responses.get(str(exchange["status"]))
    if response is None and exchange["status"] >= 400:
        response = responses.get("default")
    where = f'{exchange["method"]} {path} {exchange["status"]}'
    if response is None:
        if exchange["status"] != 304:
            problems.append(f"{where}: this status is not described")
        continue
    content = resolve(response).get("content", {})
    kind = (exchange["type"] or "").split(";")[0]
    if not content:
        checked.add((exchange["method"], path, exchange["status"]))
        continue
    if kind not in content:
        problems.append(f"{where}: answered as {kind!r}, described are {sorted(content)}")
        continue
    if "json" in kind and "ndjson" not in kind:
        schema = dict(content[kind]["schema"], components=spec["components"])
        for error in jsonschema.Draft202012Validator(schema).iter_errors(exchange["body"]):
            problems.append(f"{where}: {'/'.join(map(str, error.path))}: {error.message[:200]}")
    checked.add((exchange["method"], path, exchange["status"]))
answered = {(method, path) for method, path, status in checked if status < 300}
missing = [f"{m} {p}" for m, p, _ in sorted(described)
           if (m, p) not in answered and not p.endswith(("/events", "/release", "{action}"))
           and not ("rollouts/" in p)]
problems += [f"never answered well in this test: {it}" for it in missing]
print("\n".join(problems))
sys.exit(1 if problems else 0)
