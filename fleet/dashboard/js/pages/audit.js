// Who did what, to what, why, and what came of it.

import { get } from "../api.js";
import { h } from "../dom.js";
import { changed } from "../route.js";
import { table } from "../table.js";
import { when } from "../time.js";

const FIELDS = [
  ["who", "Who", "anybody"],
  ["action", "Action", "anything"],
  ["target", "Target", "anything"],
];

export const page = {
  title: () => "Audit log",
  every: 10_000,
  wants: (kind) => kind === "rollout",

  load: (route, signal) =>
    get(
      "audit",
      {
        ...Object.fromEntries(FIELDS.map(([name]) => [name, route.query.get(name)])),
        limit: 100,
        cursor: route.query.get("cursor"),
      },
      signal,
    ),

  view(route, data, { go }) {
    const cursor = route.query.get("cursor");
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Audit log"),
        h("p", { class: "muted" }, "everything that changed something, newest first"),
      ),
      h(
        "form",
        {
          class: "filters",
          "aria-label": "Filter the audit log",
          on: { submit: (event) => event.preventDefault() },
        },
        FIELDS.map(([name, label, hint]) =>
          h(
            "div",
            { class: "field" },
            h("label", { for: `a-${name}` }, label),
            h("input", {
              id: `a-${name}`,
              type: "text",
              value: route.query.get(name) ?? "",
              placeholder: hint,
              autocomplete: "off",
              on: { change: (event) => go(changed(route, { [name]: event.target.value.trim() })) },
            }),
          ),
        ),
      ),
      h(
        "div",
        { class: "panel" },
        table({
          caption: "Audit log",
          rows: data.items,
          rowKey: (row) => String(row.id),
          empty: "Nothing is recorded that matches.",
          columns: [
            { label: "When", primary: true, cell: (row) => when(row.at) },
            { label: "Who", cell: (row) => [row.who, h("span", { class: "muted small" }, ` ${row.role}`)] },
            { label: "Action", cell: (row) => row.action },
            { label: "Target", cell: (row) => row.target },
            { label: "Why", class: "wide", cell: (row) => row.reason },
            { label: "Outcome", class: "wide", cell: (row) => row.outcome },
            { label: "From", cell: (row) => row.from },
          ],
        }),
      ),
      h(
        "nav",
        { class: "pager", "aria-label": "Pages" },
        h("span", {}),
        h(
          "span",
          { class: "pager-links" },
          cursor ? h("a", { class: "button", href: changed(route, {}) }, "Newest") : null,
          data.next
            ? h("a", { class: "button", href: changed(route, { cursor: data.next }) }, "Older")
            : null,
        ),
      ),
    ];
  },
};
