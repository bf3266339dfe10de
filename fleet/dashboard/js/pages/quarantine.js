// Bundles that nodes refuse, one row for each bundle and reason; and letting nodes try one again.

import { get, post } from "../api.js";
import { ask } from "../dialog.js";
import { h, icon } from "../dom.js";
import { count, number, short } from "../format.js";
import { href } from "../route.js";
import { table } from "../table.js";
import { age, now } from "../time.js";

const FIRST = 500; // as many as one answer has; where more nodes refuse, the page says that it shows the newest

/** How a refusal ends (format/src/status.rs, QuarantineEnd). */
const ENDS = {
  verified: "by itself, when a fetch verifies all of it",
  byHand: "by another bundle, prestage install --now on the node, or a release",
  released: "only by a release: somebody may be at work on that node",
};

export const page = {
  title: () => "Quarantine",
  every: 5000,
  wants: (kind) => kind === "summary",

  async load(route, signal) {
    const [found, rollouts] = await Promise.all([
      get("quarantine", { bundle: route.query.get("bundle"), limit: FIRST }, signal),
      get("rollouts", {}, signal),
    ]);
    return { ...found, policies: rollouts.items };
  },

  view(route, data, context) {
    const groups = group(data.items);
    const only = route.query.get("bundle");
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Quarantine"),
        h(
          "p",
          { class: "muted" },
          data.total === 0 ? "no node refuses anything" : count(data.total, "refusal"),
        ),
      ),
      h(
        "p",
        { class: "lead" },
        "A node refuses a bundle whose bytes or signatures were wrong, or whose install failed on it. Many nodes and one mirror: look at the mirror. One node alone, altered there: treat that machine as broken into until you know better.",
      ),
      only
        ? h(
            "ul",
            { class: "chips", "aria-label": "Filters in force" },
            h(
              "li",
              {},
              h(
                "a",
                { class: "chip", href: href(["quarantine"]) },
                `Bundle: ${only}`,
                icon("failed"),
                h("span", { class: "sr-only" }, ", remove this filter"),
              ),
            ),
          )
        : null,
      data.total > data.items.length
        ? h(
            "p",
            { class: "inline-problem" },
            icon("info"),
            `Counted are the newest ${number(data.items.length)} of ${number(data.total)} refusals.`,
          )
        : null,
      groups.length === 0
        ? h(
            "section",
            { class: "all-well", "aria-label": "Nothing refused" },
            icon("good"),
            h(
              "p",
              {},
              h("strong", {}, "Nothing is refused."),
              " Every bundle that nodes have seen was what was signed.",
            ),
          )
        : groups.map((one) => bundle(one, data.policies, context)),
    ];
  },
};

/** Refusals by bundle, most nodes first; in each by reason. */
export function group(items) {
  const bundles = new Map();
  for (const item of items) {
    const key = `${item.bundle} ${item.index}`;
    const one = bundles.get(key) ?? { key, bundle: item.bundle, index: item.index, items: [] };
    one.items.push(item);
    bundles.set(key, one);
  }
  return [...bundles.values()].sort((a, b) => b.items.length - a.items.length);
}

function bundle({ key, bundle: version, index, items }, policies, context) {
  const first = items.reduce((all, one) => (one.since < all ? one.since : all), items[0].since);
  const reasons = new Map();
  for (const item of items) {
    const why = `${item.step} ${item.exitCode} ${item.ends} ${item.reason}`;
    reasons.set(why, [...(reasons.get(why) ?? []), item]);
  }
  const rows = [...reasons.entries()].sort((a, b) => b[1].length - a[1].length);
  const shown = rows.slice(0, 20);
  const id = `q-${short(index)}`;
  return h(
    "section",
    { class: "panel", "data-key": key, "aria-labelledby": id },
    h(
      "div",
      { class: "panel-head" },
      h(
        "h2",
        { id },
        version,
        h("span", { class: "muted" }, ` refused by ${count(items.length, "node")}, first `),
        h("span", { class: "muted" }, age(first)),
      ),
      context.session.role === "viewer"
        ? null
        : h(
            "button",
            {
              type: "button",
              class: "button",
              on: { click: () => release(version, items.length, policies, context) },
            },
            "Release …",
          ),
    ),
    h("p", { class: "small muted" }, "Index ", h("span", { class: "mono", title: index }, short(index))),
    table({
      caption: `Why ${version} is refused`,
      rows: shown,
      rowKey: ([why]) => why,
      columns: [
        { label: "What was wrong", primary: true, class: "wide", cell: ([, [one]]) => one.reason },
        { label: "Step", cell: ([, [one]]) => `${one.step}, exit code ${one.exitCode}` },
        { label: "Ends", cell: ([, [one]]) => ENDS[one.ends] ?? one.ends },
        { label: "Nodes", class: "wide", cell: ([, all]) => names(all) },
      ],
    }),
    rows.length > shown.length
      ? h("p", { class: "small" }, `And ${number(rows.length - shown.length)} other reasons.`)
      : null,
  );
}

function names(items) {
  const some = items.slice(0, 5);
  return [
    some.map((item, i) => [i ? ", " : "", h("a", { href: href(["nodes", item.node]) }, item.node)]),
    items.length > some.length ? ` and ${number(items.length - some.length)} more` : null,
  ];
}

async function release(version, nodes, policies, { reload, announce }) {
  const names = policies.map((one) => `${one.namespace}/${one.name}`);
  const likely = policies.find((one) => one.bundle === version);
  const select = h(
    "select",
    { id: "release-policy", name: "policy", required: true },
    names.map((name) =>
      h("option", { value: name, selected: likely && name === `${likely.namespace}/${likely.name}` }, name),
    ),
  );
  const before = new Date(now()).toISOString().replace(/\.\d+Z$/, "Z");
  const done = await ask({
    title: `Release ${version}?`,
    verb: "Release bundle",
    danger: true,
    reason: "Why it is safe now",
    body: h(
      "ul",
      {},
      h(
        "li",
        {},
        `${count(nodes, "node that has", "nodes that have")} refused ${version} until now may try it again; the release is published in the policy you choose and counts for that policy's nodes.`,
      ),
      h("li", {}, "A node that refuses it after this moment goes on refusing it."),
      h("li", {}, "Everything is verified again: a release never lets an unsigned byte through."),
    ),
    fields: h(
      "div",
      { class: "field" },
      h("label", { for: "release-policy" }, "Published in the policy"),
      select,
    ),
    act: (reason, form) =>
      post("quarantine/release", { policy: form.get("policy"), bundle: version, before, reason }),
  });
  if (done) {
    announce(done.message ?? `${version} is released.`);
    reload();
  }
}
