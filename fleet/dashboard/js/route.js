// Where in the dashboard one is, as an address that can be shared: #/nodes?state=failed&sort=-lastSeen.
//
// After the # because then the server needs no rules for it and every link works below any path of a proxy.

/** "#/nodes/x?y=z" → {segments: ["nodes", "x"], query: URLSearchParams}. */
export function parse(hash) {
  const [where, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { segments: where.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment; // typed by hand
  }
}

/** The other way round; what has no value is left out, a list is said several times. */
export function href(segments, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const text = new URLSearchParams(
    pairs.filter(([, value]) => value !== undefined && value !== null && value !== ""),
  ).toString();
  return `#/${segments.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** The same place with some of the query changed. A change of a filter begins at the first page again. */
export function changed(route, changes) {
  const now = Object.fromEntries(
    [...new Set(route.query.keys())].map((name) => [name, route.query.getAll(name)]),
  );
  return href(route.segments, { ...now, cursor: "", ...changes });
}
