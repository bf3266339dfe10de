// Run inside the page by cases.py: what the pure modules say, against what they have to say. Returns what is wrong.
const wrong = [];
let looked = 0;
const is = (what, got, wanted) => {
  looked += 1;
  if (JSON.stringify(got) !== JSON.stringify(wanted))
    wrong.push(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(wanted)}`);
};
const format = await import("./js/format.js");
const route = await import("./js/route.js");
const words = await import("./js/rollout-words.js");
const { attention } = await import("./js/attention.js");
const { slots, last, sum } = await import("./js/chart.js");
const { morph, h } = await import("./js/dom.js");

is("number", format.number(10000), "10,000");
is("no number", format.number(undefined), "–");
is("one node", format.count(1, "node"), "1 node");
is("two nodes", format.count(2, "node"), "2 nodes");
is("nothing of nothing", format.percent(0, 0), "–");
is("none", format.percent(0, 7), "0 %");
is("all", format.percent(7, 7), "100 %");
is("hardly any is not none", format.percent(1, 10000), "< 0.1 %");
is("nearly all is not all", format.percent(9999, 10000), "> 99.9 %");
is("a third", format.percent(1, 3), "33.3 %");
is("bytes", format.bytes(1023), "1023 B");
is("KiB", format.bytes(1536), "1.5 KiB");
is("GiB", format.bytes(5 * 2 ** 30), "5.0 GiB");
is("duration", format.duration(3725), "1 h 2 min");
is("a day", format.duration(86400), "1 day");
is("days", format.duration(2 * 86400 + 7200), "2 days 2 h");
is("ago", format.relative(0, 240_000), "4 min ago");
is("ahead", format.relative(3 * 3_600_000, 0), "in 3 h");
is("never negative", format.duration(-5), "0 s");
is("wire seconds", format.parseTime(1), 1000);
is("no time", format.parseTime(null), undefined);
is("nonsense", format.parseTime("yesterday"), undefined);

is("an address", route.href(["nodes", "a/b?c"], { q: "x y", sort: "" }), "#/nodes/a%2Fb%3Fc?q=x+y");
is("and back", route.parse("#/nodes/a%2Fb%3Fc?q=x+y").segments, ["nodes", "a/b?c"]);
is("typed by hand", route.parse("#/nodes/%zz").segments, ["nodes", "%zz"]);
is(
  "labels stay both",
  route.changed(route.parse("#/nodes?label=a%3D1&label=b%3D2&cursor=x"), { q: "z" }),
  "#/nodes?label=a%3D1&label=b%3D2&q=z",
);

const batch = (over) => ({
  batch: "1",
  upTo: 1,
  notBefore: "2026-01-01T00:00:00Z",
  nodes: 100,
  waiting: 0,
  staged: 0,
  installing: 0,
  installed: 0,
  failed: 0,
  rolledBack: 0,
  silent: 0,
  ...over,
});
const rollout = {
  namespace: "a",
  name: "b",
  bundle: "2",
  state: "running",
  nodes: 200,
  finished: 92,
  failed: 2,
  plan: { previous: "1" },
  reason: null,
  by: null,
  at: null,
  stuck: null,
  batches: [
    batch({ installed: 90, failed: 1, rolledBack: 1, installing: 3, silent: 5 }),
    batch({ batch: "2", notBefore: "2099-01-01T00:00:00Z", waiting: 60, staged: 40 }),
  ],
};
const now = Date.parse("2026-06-01T00:00:00Z");
is("the open batch", words.openBatch(rollout, now), 0);
is("in words", words.openSentence(rollout, now), "1 of 2 batches is open");
is(
  "how far",
  words.progressSentence(rollout),
  "90 of 200 nodes installed (45.0 %), 43 under way, 2 failed or rolled back, 5 silent",
);
is("what can be done while it runs", words.possibleActs(rollout), ["pause", "halt", "rollback"]);
is("what can be done while it is halted", words.possibleActs({ ...rollout, state: "halted" }), [
  "resume",
  "rollback",
]);
is(
  "halting says how many",
  words.actWords("halt", rollout).sentences[0],
  "105 nodes that have not begun will not begin, in any of 2 batches.",
);
is(
  "and that an install goes on",
  words.actWords("halt", rollout).sentences[1],
  "3 nodes that are installing now go on to the end: an install is never interrupted.",
);
is("rollback says where to", words.actWords("rollback", rollout).title, "Roll back a/b to 1?");
is(
  "one is one",
  words
    .actWords("rollback", { ...rollout, batches: [batch({ installed: 1 })] })
    .sentences[1].startsWith("1 node that has 2 goes back to its restore point"),
  true,
);

const summary = {
  total: 100,
  states: { upToDate: 100 },
  metadata: { expires: null, problem: null },
  clockOff: 0,
  oldestSilence: null,
};
const well = { summary, rollouts: [rollout], repository: null, since: {} };
is("all is well", attention(well, now), []);
const titles = (data) => attention({ ...well, ...data }, now).map((item) => `${item.level} ${item.title}`);
is(
  "the worst first",
  titles({
    summary: { ...summary, clockOff: 1, states: { silent: 3, needsPerson: 1, "never-reported": 2 } },
  }),
  [
    "bad 1 node needs a person",
    "warn 3 nodes are silent",
    "info 2 nodes have never reported",
    "info 1 node has a wrong clock",
  ],
);
is("many silent are urgent", titles({ summary: { ...summary, states: { silent: 6 } } }), [
  "bad 6 nodes are silent",
]);
is("a halt", titles({ rollouts: [{ ...rollout, state: "halted", reason: "x", by: "y" }] }), [
  "bad Rollout a/b is halted",
]);
is("stuck", titles({ rollouts: [{ ...rollout, stuck: "batch 1 does not end" }] }), [
  "warn Rollout a/b does not go on",
]);
const role = (name, expires) => ({ repository: { roles: [{ role: name, expires }] } });
is("expired", titles(role("snapshot", "2026-05-31T00:00:00Z")), ["bad The metadata of snapshot has expired"]);
is("a ceremony is near", titles(role("root", "2026-06-20T00:00:00Z")), [
  "warn The metadata of root expires in 19 days",
]);
is("a ceremony is very near", titles(role("root", "2026-06-02T12:00:00Z")), [
  "bad The metadata of root expires in 1 day 12 h",
]);
is("timestamps are renewed all the time", titles(role("timestamp", "2026-06-01T12:00:00Z")), []);
is(
  "what the server says of it",
  titles({ summary: { ...summary, metadata: { expires: null, problem: "it is not signed" } } }),
  ["bad The repository's metadata is in trouble"],
);

const level = [0, 300, 600, 1500].map((at, i) => ({ at: at * 1000, values: { a: i } }));
is(
  "a gap stays a gap",
  slots(level, 96, last).map((row) => row.missing ?? row.values.a),
  [0, 1, 2, true, true, 3],
);
const many = Array.from({ length: 1000 }, (_, i) => ({ at: i * 1000, values: { a: 1 } }));
is("many become few", slots(many, 10, sum).length, 10);
is(
  "and no byte is lost",
  slots(many, 10, sum).reduce((all, row) => all + row.values.a, 0),
  1000,
);

const place = h(
  "div",
  {},
  h(
    "ul",
    {},
    h("li", { "data-key": "a" }, h("input", { id: "kept", value: "" })),
    h("li", { "data-key": "b" }, "b"),
  ),
);
document.body.append(place);
const field = place.querySelector("#kept");
field.focus();
field.value = "typed";
morph(
  place,
  h(
    "div",
    {},
    h(
      "ul",
      {},
      h("li", { "data-key": "b" }, "B"),
      h("li", { "data-key": "c" }, "c"),
      h("li", { "data-key": "a" }, h("input", { id: "kept", value: "" })),
    ),
  ),
);
is(
  "rows change places",
  [...place.querySelectorAll("li")].map((li) => li.dataset.key),
  ["b", "c", "a"],
);
is("the same element, still with the focus", document.activeElement === field && field.isConnected, true);
is("what was typed stays", field.value, "typed");
morph(place, h("div", {}, h("h1", { tabindex: "-1" }, "A page"), h("ul", {}, h("li", { "data-key": "c" }, "c"))));
is("what had the focus and is gone leaves it to the heading", document.activeElement.tagName, "H1");
for (const [name, value] of [
  ["onclick", "x"],
  ["style", "x"],
  ["href", "javascript:x"],
  ["href", "https://x/"],
  ["srcdoc", "x"],
]) {
  let refused = false;
  try {
    h("a", { [name]: value });
  } catch {
    refused = true;
  }
  is(`${name} is not set from data`, refused, true);
}
place.remove();
return looked > 50 ? wrong : [...wrong, `only ${looked} things were looked at`];
