// Tokens of people and tokens for enrolment, and which nodes' keys count. A secret is shown once, when it is made.

import { get, path, post } from "../api.js";
import { ask } from "../dialog.js";
import { h, icon } from "../dom.js";
import { number, parseTime, short } from "../format.js";
import { changed, href } from "../route.js";
import { section, table } from "../table.js";
import { age, now, when } from "../time.js";

export const page = {
  title: () => "Access",
  every: 10_000,
  wants: () => false,

  async load(route, signal, session) {
    const [tokens, enrollments] = await Promise.all([
      // Operators may let nodes enrol; who has which token is for admins.
      session.role === "admin" ? get("tokens", {}, signal) : undefined,
      get("enrollments", { limit: 50, cursor: route.query.get("cursor") }, signal),
    ]);
    return { tokens: tokens?.items, enrollments };
  },

  view(route, { tokens, enrollments }, context) {
    const people = tokens?.filter((one) => one.kind === "operator");
    const machines = tokens?.filter((one) => one.kind === "enrollment");
    return [
      h("div", { class: "page-head" }, h("h1", {}, "Access")),
      people &&
        section(
          "Tokens of people",
          {
            aside: h(
              "button",
              {
                type: "button",
                id: "new-operator",
                class: "button",
                on: { click: () => makeOperator(context) },
              },
              "New token …",
            ),
          },
          table({
            caption: "Tokens of people",
            rows: people,
            rowKey: (row) => row.id,
            empty: "There is none: how are you here?",
            columns: [
              { label: "Name", primary: true, cell: (row) => row.name },
              { label: "Role", cell: (row) => row.role },
              { label: "State", cell: tokenState },
              { label: "Made", cell: (row) => [age(row.made), ` by ${row.madeBy}`] },
              { label: "Expires", cell: (row) => age(row.expires) },
              { label: "Last used", cell: (row) => (row.lastUsed ? age(row.lastUsed) : "never") },
              { label: "", cell: (row) => revokeButton(row, context) },
            ],
          }),
        ),
      section(
        "Tokens for enrolment",
        {
          aside: h(
            "button",
            {
              type: "button",
              id: "new-enrollment",
              class: "button",
              on: { click: () => makeEnrollment(context) },
            },
            "New token …",
          ),
        },
        !machines
          ? h("p", { class: "muted" }, "Which tokens there are is shown to admins.")
          : table({
              caption: "Tokens for enrolment",
              rows: machines,
              rowKey: (row) => row.id,
              empty: "None is open. A node that enrols needs one, or a key that was registered before.",
              columns: [
                { label: "Name", primary: true, cell: (row) => row.name },
                {
                  label: "For",
                  cell: (row) => [
                    row.node ?? null,
                    Object.entries(row.labels).map(([key, value]) => ` ${key}=${value}`),
                    !row.node && Object.keys(row.labels).length === 0 ? "any node" : null,
                  ],
                },
                { label: "Used", number: true, cell: (row) => `${number(row.used)} of ${number(row.uses)}` },
                { label: "State", cell: tokenState },
                { label: "Made", cell: (row) => [age(row.made), ` by ${row.madeBy}`] },
                { label: "Expires", cell: (row) => age(row.expires) },
                { label: "", cell: (row) => revokeButton(row, context) },
              ],
            }),
      ),
      section(
        "Keys of nodes",
        {},
        table({
          caption: "Keys of nodes, newest first",
          rows: enrollments.items,
          rowKey: (row) => `${row.node} ${row.keyid}`,
          empty: "No node is enrolled yet.",
          columns: [
            {
              label: "Node",
              primary: true,
              cell: (row) => h("a", { href: href(["nodes", row.node]), class: "name" }, row.node),
            },
            { label: "State", cell: (row) => keyState(row) },
            {
              label: "Key id",
              cell: (row) => h("span", { class: "mono", title: row.keyid }, short(row.keyid)),
            },
            { label: "Since", cell: (row) => when(row.since) },
            { label: "How", cell: (row) => row.how },
          ],
        }),
        h(
          "nav",
          { class: "pager", "aria-label": "Pages of keys" },
          h("span", {}),
          h(
            "span",
            { class: "pager-links" },
            route.query.get("cursor")
              ? h("a", { class: "button", href: changed(route, {}) }, "Newest")
              : null,
            enrollments.next
              ? h("a", { class: "button", href: changed(route, { cursor: enrollments.next }) }, "Older")
              : null,
          ),
        ),
      ),
    ];
  },
};

function over(token) {
  return token.revoked
    ? "revoked"
    : parseTime(token.expires) <= now()
      ? "expired"
      : token.kind === "enrollment" && token.used >= token.uses
        ? "used up"
        : undefined;
}

function tokenState(token) {
  const word = over(token);
  return word
    ? h("span", { class: "badge is-absent" }, icon("failed"), word)
    : h("span", { class: "badge is-good" }, icon("good"), "counts");
}

function keyState(row) {
  if (row.state === "revoked")
    return h("span", { class: "badge is-bad", title: row.revokedWhy ?? null }, icon("failed"), "revoked");
  if (row.state === "expected") return h("span", { class: "badge is-waiting" }, icon("waiting"), "expected");
  return h("span", { class: "badge is-good" }, icon("good"), row.state);
}

function revokeButton(token, context) {
  if (over(token)) return null;
  return h(
    "button",
    {
      type: "button",
      class: "button quiet",
      "aria-label": `Revoke the token ${token.name}`,
      on: { click: () => revoke(token, context) },
    },
    "Revoke …",
  );
}

async function revoke(token, { announce, reload }) {
  const done = await ask({
    title: `Revoke the token ${token.name}?`,
    verb: "Revoke token",
    danger: true,
    body: h(
      "p",
      {},
      token.kind === "operator"
        ? "It counts no more, at once, nor do the sessions that were made with it."
        : "No node can enrol with it any more. Nodes that have are not touched.",
    ),
    act: () => post(path("tokens", token.id), undefined, "DELETE"),
  });
  if (done) {
    announce(`The token ${token.name} is revoked.`);
    reload();
  }
}

function field(name, label, props, hint) {
  return h(
    "div",
    { class: "field" },
    h("label", { for: `t-${name}` }, label),
    h("input", { id: `t-${name}`, name, autocomplete: "off", ...props }),
    hint ? h("p", { class: "hint" }, hint) : null,
  );
}

async function makeOperator(context) {
  const made = await ask({
    title: "New token for a person",
    verb: "Make token",
    body: h(
      "p",
      {},
      "Its secret is shown once, after this. Whoever has it may do what its role may, in this dashboard and in the API.",
    ),
    fields: [
      field("name", "Whose it is", { type: "text", required: true, maxlength: "100" }),
      h(
        "div",
        { class: "field" },
        h("label", { for: "t-role" }, "Role"),
        h(
          "select",
          { id: "t-role", name: "role" },
          [
            ["viewer", "viewer: sees everything"],
            ["operator", "operator: also pauses, halts, releases"],
            ["admin", "admin: also gives access"],
          ].map(([value, text]) => h("option", { value }, text)),
        ),
      ),
      field(
        "expiresInHours",
        "Expires in hours",
        { type: "number", min: "1", max: "87600", value: "8760", required: true },
        "8760 is a year.",
      ),
    ],
    act: (_, form) =>
      post("tokens", {
        kind: "operator",
        name: form.get("name").trim(),
        role: form.get("role"),
        expiresInHours: Number(form.get("expiresInHours")),
      }),
  });
  if (made) await show(made, context);
}

async function makeEnrollment(context) {
  const made = await ask({
    title: "New token for enrolment",
    verb: "Make token",
    body: h("p", {}, "A node that brings it may make its key known. Its secret is shown once, after this."),
    fields: [
      field("name", "What it is for", { type: "text", required: true, maxlength: "100" }),
      field("node", "Only for this node", { type: "text", maxlength: "255" }, "Empty: for any."),
      field(
        "labels",
        "Only for nodes with these labels",
        { type: "text", pattern: "\\s*([^=,\\s]+=[^,]*)?(,\\s*[^=,\\s]+=[^,]*)*\\s*" },
        "KEY=VALUE, several with commas. Empty: for any.",
      ),
      field("uses", "How often", { type: "number", min: "1", max: "100000", value: "1", required: true }),
      field("expiresInHours", "Expires in hours", {
        type: "number",
        min: "1",
        max: "87600",
        value: "24",
        required: true,
      }),
    ],
    act: (_, form) => {
      const labels = Object.fromEntries(
        form
          .get("labels")
          .split(",")
          .map((pair) => pair.trim())
          .filter(Boolean)
          .map((pair) => pair.split(/=(.*)/s).slice(0, 2)),
      );
      const node = form.get("node").trim();
      return post("tokens", {
        kind: "enrollment",
        name: form.get("name").trim(),
        uses: Number(form.get("uses")),
        expiresInHours: Number(form.get("expiresInHours")),
        ...(node ? { node } : {}),
        ...(Object.keys(labels).length ? { labels } : {}),
      });
    },
  });
  if (made) await show(made, context);
}

async function show(made, { announce, reload }) {
  const secret = h("input", {
    id: "t-secret",
    type: "text",
    readonly: true,
    value: made.token,
    class: "mono",
    "aria-label": "The secret",
    on: { focus: (event) => event.target.select() },
  });
  await ask({
    title: "The token is made",
    verb: "Done",
    refuse: "Close",
    body: [
      h(
        "p",
        {},
        "Copy its secret now: it is kept nowhere and cannot be shown again. It expires ",
        age(made.expires),
        ".",
      ),
      secret,
    ],
    act: async () => true,
  });
  announce("The token is made.");
  reload();
}
