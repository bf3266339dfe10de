// Which bundle, packages and advisories had this node, or every node, on that day: one question, and its answer as a file.

import { address, get } from "../api.js";
import { h, icon } from "../dom.js";
import { count, number, short, utc } from "../format.js";
import { changed, href } from "../route.js";
import { outcomeBadge } from "../states.js";
import { table } from "../table.js";
import { now, when } from "../time.js";

const SIZE = 100;
const EXPORTS = [
  ["csv", "CSV"],
  ["ndjson", "NDJSON"],
  ["json", "JSON (this page)"],
];

export const page = {
  title: () => "Compliance",
  every: 60_000,
  wants: () => false, // the past does not change

  load: (route, signal) =>
    get("compliance", { ...question(route), limit: SIZE, cursor: route.query.get("cursor") }, signal),

  view(route, data, context) {
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Compliance"),
        h("p", { class: "muted" }, "as of ", when(data.at)),
      ),
      form(route, data, context),
      h(
        "p",
        { class: "exports" },
        "Export: ",
        EXPORTS.map(([format, label]) =>
          h(
            "a",
            {
              class: "button",
              download: `compliance-${data.at.slice(0, 10)}.${format}`,
              href: address("compliance", {
                ...question(route),
                at: data.at,
                format,
                ...(format === "json" ? { limit: SIZE, cursor: route.query.get("cursor") } : {}),
              }),
            },
            icon("fetching"),
            label,
          ),
        ),
        h(
          "label",
          { class: "check" },
          h("input", {
            type: "checkbox",
            checked: route.query.get("packages") === "true",
            on: {
              change: (event) => context.go(changed(route, { packages: event.target.checked ? "true" : "" })),
            },
          }),
          "with packages (JSON and NDJSON)",
        ),
      ),
      h(
        "div",
        { class: "panel" },
        table({
          caption: `What each node had at ${utc(data.at)}`,
          rows: data.items,
          rowKey: (row) => row.node,
          empty: "No node matches, or none was known at that time.",
          columns: [
            {
              label: "Node",
              primary: true,
              cell: (row) => h("a", { href: href(["nodes", row.node]), class: "name" }, row.node),
            },
            { label: "Site", class: "id", cell: (row) => row.site || none() },
            { label: "Variant", class: "id", cell: (row) => row.variant || none() },
            {
              label: "Bundle",
              class: "id",
              cell: (row) =>
                row.bundle
                  ? [row.bundle, h("span", { class: "muted small" }, ` cycle ${row.cycle}`)]
                  : h("strong", { class: "is-bad" }, "none"),
            },
            { label: "Since", cell: (row) => (row.since ? when(row.since) : none()) },
            { label: "Advisories", cell: advisories },
            {
              label: "Installed set",
              cell: (row) =>
                row.inventory
                  ? h("span", { class: "mono", title: row.inventory }, short(row.inventory))
                  : none(),
            },
            { label: "Last outcome", cell: (row) => (row.outcome ? outcomeBadge(row.outcome) : none()) },
          ],
        }),
      ),
      pager(route, data),
    ];
  },
};

const none = () => h("span", { class: "muted nothing" }, "–");

function question(route) {
  return {
    at: route.query.get("at"),
    node: route.query.get("node"),
    label: route.query.getAll("label"),
    packages: route.query.get("packages"),
  };
}

function form(route, data, { go }) {
  const set = (changes) => go(changed(route, changes));
  const text = (name, label, hint) =>
    h(
      "div",
      { class: "field" },
      h("label", { for: `c-${name}` }, label),
      h("input", {
        id: `c-${name}`,
        type: "text",
        value: route.query.get(name) ?? "",
        placeholder: hint,
        autocomplete: "off",
        spellcheck: "false",
        on: { change: (event) => set({ [name]: event.target.value.trim() }) },
      }),
    );
  return h(
    "form",
    { class: "filters", "aria-label": "What is asked", on: { submit: (event) => event.preventDefault() } },
    h(
      "div",
      { class: "field" },
      h("label", { for: "c-at" }, "At (your zone)"),
      h("input", {
        id: "c-at",
        type: "datetime-local",
        step: "60",
        max: local(now()),
        value: local(Date.parse(data.at)),
        "aria-describedby": "c-at-utc",
        on: { change: (event) => set({ at: event.target.value ? wire(new Date(event.target.value)) : "" }) },
      }),
      h("p", { class: "hint", id: "c-at-utc" }, utc(data.at)),
    ),
    text("node", "Node", "all"),
    text("label", "Label", "role=till"),
    h(
      "div",
      { class: "field" },
      h("span", { class: "label" }, "Go to"),
      h(
        "span",
        { class: "chips" },
        [
          ["now", ""],
          ["a week ago", wire(new Date(now() - 7 * 86_400_000))],
          ["start of this month", wire(monthStart())],
        ].map(([label, at]) => h("a", { class: "chip", href: changed(route, { at }) }, label)),
      ),
    ),
  );
}

function monthStart() {
  const date = new Date(now());
  return new Date(date.getFullYear(), date.getMonth(), 1);
}

/** As the server writes times: UTC, whole seconds. */
function wire(date) {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}

/** As a datetime-local field wants it. */
function local(at) {
  const date = new Date(at);
  return new Date(at - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function advisories(row) {
  if (row.advisories === null)
    return h(
      "span",
      { class: "muted", title: "The index of its bundle is not known to the server" },
      "not known",
    );
  if (row.advisories.length === 0) return "0";
  const grave = row.advisories.filter((one) => /critical|high|important/i.test(one.severity)).length;
  return h(
    "details",
    { "data-key": `adv-${row.node}` },
    h(
      "summary",
      {},
      count(row.advisories.length, "advisory", "advisories"),
      grave ? `, ${number(grave)} high or critical` : "",
    ),
    h(
      "ul",
      { class: "plain-list" },
      row.advisories.map((one) =>
        h("li", {}, h("span", { class: "mono" }, one.id), ` ${one.severity}, ${one.source}`),
      ),
    ),
  );
}

function pager(route, data) {
  const cursor = route.query.get("cursor");
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    h("span", {}, data.total === undefined ? "" : count(data.total, "node")),
    h(
      "span",
      { class: "pager-links" },
      cursor ? h("a", { class: "button", href: changed(route, {}) }, "First") : null,
      data.next
        ? h("a", { class: "button", href: changed(route, { cursor: data.next, at: data.at }) }, "Next")
        : null,
    ),
  );
}
