// The node table: filtered, sorted and paged by the server; the address says how, so a view can be sent to a colleague.

import { get } from "../api.js";
import { h, icon } from "../dom.js";
import { count, duration, number } from "../format.js";
import { changed, href } from "../route.js";
import { badge, describe, STATES } from "../states.js";
import { table } from "../table.js";
import { age } from "../time.js";

const FILTERS = [
  ["state", "State"],
  ["variant", "Variant"],
  ["bundle", "Bundle"],
  ["policy", "Policy"],
  ["site", "Site"],
  ["label", "Label"],
  ["inventory", "Installed set"],
  ["q", "Text"],
];
const WRONG = "needsPerson,failed,quarantined,silent";
const SIZES = ["50", "100", "250", "500"];

// Which page led to which, by cursor: the server only knows the way forward.
const before = new Map();

export const page = {
  title: () => "Nodes",
  every: 5000,
  wants: (kind) => kind === "node",

  async load(route, signal) {
    const query = Object.fromEntries(
      FILTERS.map(([name]) => [name, name === "label" ? route.query.getAll(name) : route.query.get(name)]),
    );
    const [found, summary, rollouts] = await Promise.all([
      get(
        "nodes",
        { ...query, sort: sorted(route), limit: size(route), cursor: route.query.get("cursor") },
        signal,
      ),
      get("summary", {}, signal),
      get("rollouts", {}, signal),
    ]);
    if (found.next)
      before.set(found.next, { cursor: route.query.get("cursor") ?? "", from: String(position(route) ?? 0) });
    return { found, summary, policies: rollouts.items.map((one) => `${one.namespace}/${one.name}`) };
  },

  view(route, { found, summary, policies }, context) {
    const active = FILTERS.filter(([name]) => route.query.get(name));
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Nodes"),
        h(
          "p",
          { class: "muted", role: "status" },
          active.length
            ? `${number(found.total)} of ${count(summary.total, "node")}`
            : count(summary.total, "node"),
        ),
      ),
      filters(route, summary, policies, context),
      active.length
        ? h(
            "ul",
            { class: "chips", "aria-label": "Filters in force" },
            active.map(([name, label]) =>
              h(
                "li",
                { "data-key": name },
                h(
                  "a",
                  { href: changed(route, { [name]: "", from: "" }), class: "chip" },
                  `${label}: ${shownValue(name, route)}`,
                  icon("failed"),
                  h("span", { class: "sr-only" }, ", remove this filter"),
                ),
              ),
            ),
            h(
              "li",
              {},
              h(
                "a",
                {
                  href: href(["nodes"], { sort: route.query.get("sort"), limit: route.query.get("limit") }),
                  class: "chip quiet",
                },
                "Remove all",
              ),
            ),
          )
        : null,
      h(
        "div",
        { class: "panel" },
        table({
          caption: "Nodes",
          columns,
          rows: found.items,
          rowKey: (row) => row.node,
          sorted: sorted(route),
          sortHref: (word) => changed(route, { sort: word, from: "" }),
          empty: active.length
            ? "No node matches. Remove a filter, or look for part of a name."
            : "No node is enrolled yet: prestage enroll on a node, with a token from Access.",
        }),
      ),
      pager(route, found),
    ];
  },
};

const columns = [
  {
    label: "Node",
    sort: "name",
    primary: true,
    cell: (row) => h("a", { href: href(["nodes", row.node]), class: "name" }, row.node),
  },
  { label: "State", sort: "state", cell: state },
  {
    label: "It says",
    class: "wide widest",
    cell: (row) => h("span", { class: "clamp", title: row.summary }, row.summary),
  },
  { label: "Site", sort: "site", class: "id", cell: (row) => row.site || none() },
  { label: "Variant", sort: "variant", class: "id", cell: (row) => row.variant || none() },
  { label: "Bundle", sort: "bundle", class: "id", cell: (row) => row.bundle || none() },
  {
    label: "Failing since",
    sort: "failingSince",
    cell: (row) => (row.failingSince ? age(row.failingSince) : none()),
  },
  { label: "Last heard", sort: "lastSeen", cell: heard },
];

const none = () => h("span", { class: "muted nothing" }, "–");

function state(row) {
  const was =
    row.state === "silent" && row.reportedState
      ? h("span", { class: "muted small" }, ` was: ${describe(row.reportedState).label.toLowerCase()}`)
      : null;
  return [badge(row.state), was];
}

function heard(row) {
  return [
    row.lastSeen ? age(row.lastSeen) : none(),
    row.clockOff
      ? h(
          "span",
          { class: "note", title: "Its clock, compared with the server's" },
          icon("waiting"),
          clockOff(row.clockOff),
        )
      : null,
  ];
}

/** How far a node's clock is off, in words. */
export function clockOff(seconds) {
  return `clock ${duration(Math.abs(seconds))} ${seconds > 0 ? "ahead" : "behind"}`;
}

function sorted(route) {
  return route.query.get("sort") ?? "name";
}

function size(route) {
  const asked = route.query.get("limit") ?? "100";
  return SIZES.includes(asked) ? asked : "100";
}

/** How many nodes stand before this page, if that is known. */
function position(route) {
  if (!route.query.get("cursor")) return 0;
  const from = Number(route.query.get("from"));
  return Number.isInteger(from) && from > 0 ? from : undefined;
}

function shownValue(name, route) {
  if (name === "label") return route.query.getAll("label").join(" and ");
  const value = route.query.get(name);
  if (name === "state")
    return value
      .split(",")
      .map((one) => describe(one).label)
      .join(" or ");
  return name === "inventory" ? value.slice(0, 12) : value;
}

function filters(route, summary, policies, { go }) {
  const set = (name) => (event) => go(changed(route, { [name]: event.target.value.trim(), from: "" }));
  const pick = (name, label, options) => {
    const value = route.query.get(name) ?? "";
    // What the address asks for can be chosen too, though it is not among the known.
    const all =
      options.some(([one]) => one === value) || !value
        ? options
        : [...options, [value, shownValue(name, route)]];
    return h(
      "div",
      { class: "field" },
      h("label", { for: `f-${name}` }, label),
      h(
        "select",
        { id: `f-${name}`, on: { change: set(name) } },
        h("option", { value: "", selected: value === "" }, "Any"),
        all.map(([one, text]) => h("option", { value: one, selected: one === value }, text)),
      ),
    );
  };
  const type = (name, label, hint) =>
    h(
      "div",
      { class: "field" },
      h("label", { for: `f-${name}` }, label),
      h("input", {
        id: `f-${name}`,
        type: "text",
        value: route.query.get(name) ?? "",
        placeholder: hint,
        autocomplete: "off",
        spellcheck: "false",
        on: { change: set(name) },
      }),
    );
  const states = [
    [WRONG, "Anything wrong"],
    ...[...STATES].map(([key, known]) => [key, `${known.label} (${number(summary.states[key] ?? 0)})`]),
  ];
  // On a phone the nodes come first; which filters are in force stands below it in any case.
  return h(
    "details",
    { class: "fold", open: matchMedia("(min-width: 40rem)").matches },
    h("summary", {}, "Filters"),
    h(
      "form",
      {
        class: "filters",
        role: "search",
        "aria-label": "Filter nodes",
        on: { submit: (event) => event.preventDefault() },
      },
      pick("state", "State", states),
      pick(
        "variant",
        "Variant",
        summary.variants.filter((one) => one.variant).map((one) => [one.variant, one.variant]),
      ),
      pick(
        "bundle",
        "Installed bundle",
        summary.bundles.filter((one) => one.bundle).map((one) => [one.bundle, one.bundle]),
      ),
      pick(
        "policy",
        "Policy",
        policies.map((one) => [one, one]),
      ),
      type("site", "Site", "store-0815"),
      type("label", "Label", "role=till"),
    ),
  );
}

function pager(route, found) {
  const at = position(route);
  const step = Number(size(route));
  const cursor = route.query.get("cursor");
  const back = cursor ? before.get(cursor) : undefined;
  const words =
    found.items.length === 0
      ? ""
      : at === undefined
        ? `A later page of ${number(found.total)}`
        : `${number(at + 1)} to ${number(at + found.items.length)} of ${number(found.total)}`;
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    h("span", {}, words),
    h(
      "span",
      { class: "pager-links" },
      cursor ? h("a", { class: "button", href: changed(route, { from: "" }) }, "First") : null,
      back
        ? h(
            "a",
            {
              class: "button",
              href: changed(route, { cursor: back.cursor, from: back.from === "0" ? "" : back.from }),
            },
            "Previous",
          )
        : null,
      found.next
        ? h(
            "a",
            {
              class: "button",
              href: changed(route, { cursor: found.next, from: at === undefined ? "" : String(at + step) }),
            },
            "Next",
          )
        : null,
    ),
    h(
      "span",
      { class: "field inline" },
      h("span", {}, "Per page: "),
      SIZES.map((one) =>
        h(
          "a",
          {
            href: changed(route, { limit: one === "100" ? "" : one, from: "" }),
            "aria-current": one === size(route) ? "true" : null,
            class: "size",
          },
          one,
        ),
      ),
    ),
  );
}
