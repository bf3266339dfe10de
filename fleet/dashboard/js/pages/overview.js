// The fleet at a glance: first what is wrong, since when and what to do; then how it stands, how it got there, and what
// comes next.

import { get } from "../api.js";
import { attention } from "../attention.js";
import { last, levelSentence, series, splitBar, stackedOverTime, sum } from "../chart.js";
import { h, icon } from "../dom.js";
import { bytes, count, number, parseTime, percent } from "../format.js";
import { href } from "../route.js";
import { openSentence, progressParts, progressSentence } from "../rollout-words.js";
import { badge, GROUPS, grouped, outcomeBadge, rolloutBadge, STATES } from "../states.js";
import { strip } from "../strip.js";
import { section, table } from "../table.js";
import { age, now, when } from "../time.js";

const RANGES = [
  ["6", "6 hours"],
  ["24", "24 hours"],
  ["168", "7 days"],
  ["720", "30 days"],
];
const TROUBLE = ["needsPerson", "failed", "quarantined"];
const FLOWS = [
  { key: "wan", label: "From mirrors (WAN)" },
  { key: "site", label: "From neighbours (site)" },
];

export const page = {
  title: (_, data) => {
    const wrong = data ? attention(data, now()).filter((item) => item.level === "bad").length : 0;
    return wrong ? `(${wrong}) Fleet` : "Fleet";
  },
  every: 3000,
  wants: (kind) => kind === "summary" || kind === "rollout",

  async load(route, signal) {
    const hours = range(route);
    const [summary, history, rollouts, repository] = await Promise.all([
      get("summary", {}, signal),
      get("summary/history", { hours }, signal),
      get("rollouts", {}, signal),
      // Without a repository configured the rest is still true.
      get("repository", {}, signal).catch(() => null),
    ]);
    // The earliest of each trouble: only asked where there is any.
    const since = Object.fromEntries(
      await Promise.all(
        TROUBLE.filter((state) => summary.states[state] > 0).map(async (state) => {
          const first = await get("nodes", { state, sort: "failingSince", limit: 1 }, signal);
          return [state, first.items[0]?.failingSince ?? undefined];
        }),
      ),
    );
    // An answer that has not changed keeps its time in the browser; this is when it was last found to be so.
    const read = new Date(now()).toISOString();
    return { read, summary, history: history.rows, rollouts: rollouts.items, repository, since };
  },

  view(route, data) {
    const { summary } = data;
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Fleet"),
        h("p", { class: "muted" }, `${count(summary.total, "node")} · as of `, when(data.read)),
      ),
      trouble(attention(data, now())),
      h("div", { class: "columns" }, standing(summary), active(data.rollouts)),
      overTime(route, data),
      h("div", { class: "columns" }, causes(summary), silence(summary)),
      h("div", { class: "columns" }, traffic(data), expiring(data)),
      h(
        "div",
        { class: "columns" },
        parts("By variant", "Variant", summary.variants, "variant", summary.total),
        parts("By installed bundle", "Bundle", summary.bundles, "bundle", summary.total),
      ),
    ];
  },
};

function range(route) {
  const asked = route.query.get("hours") ?? "24";
  return RANGES.some(([hours]) => hours === asked) ? asked : "24";
}

function trouble(items) {
  if (items.length === 0) {
    return h(
      "section",
      { class: "all-well", "aria-label": "Needs attention" },
      icon("good"),
      h(
        "p",
        {},
        h("strong", {}, "Nothing needs you."),
        " No node failed, refuses a bundle or is silent, and no rollout is stopped.",
      ),
    );
  }
  const looks = { bad: ["warning", "Urgent"], warn: ["warning", "Soon"], info: ["info", "To know"] };
  return section(
    "Needs attention",
    { class: "attention" },
    h(
      "ul",
      { class: "attention-list" },
      items.map((item) => {
        const [picture, word] = looks[item.level];
        return h(
          "li",
          { "data-key": item.key, class: `level-${item.level}` },
          h("span", { class: "attention-level" }, icon(picture), word),
          h(
            "div",
            {},
            h(
              "p",
              { class: "attention-title" },
              item.href ? h("a", { href: item.href }, item.title) : item.title,
              item.since ? h("span", { class: "attention-since" }, " · since ", age(item.since)) : null,
            ),
            h("p", {}, item.text, " ", h("span", { class: "attention-todo" }, item.todo)),
          ),
        );
      }),
    ),
  );
}

function standing(summary) {
  const counts = grouped(summary.states);
  const label = GROUPS.filter((group) => counts[group.key])
    .map((group) => `${group.label} ${number(counts[group.key])}`)
    .join(", ");
  return section(
    "Where the nodes are",
    {},
    splitBar(
      GROUPS.map((group) => ({ ...group, n: counts[group.key] })),
      label || "no nodes yet",
    ),
    h(
      "table",
      { class: "table tight" },
      h("caption", { class: "sr-only" }, "Nodes by state"),
      h(
        "thead",
        { class: "sr-only" },
        h(
          "tr",
          {},
          ["State", "Nodes", "Share"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        [...STATES.keys()]
          .reverse()
          .filter((state) => summary.states[state] > 0)
          .map((state) =>
            h(
              "tr",
              { "data-key": state },
              h(
                "th",
                { scope: "row" },
                h("a", { href: href(["nodes"], { state }), class: "plain" }, badge(state)),
              ),
              h("td", { class: "number strong" }, number(summary.states[state])),
              h("td", { class: "number muted" }, percent(summary.states[state], summary.total)),
            ),
          ),
      ),
    ),
  );
}

function active(rollouts) {
  const open = rollouts.filter((one) => one.state !== "done");
  const shown = (open.length ? open : rollouts).slice(0, 6);
  return section(
    "Rollouts",
    { aside: h("a", { href: href(["rollouts"]) }, `All ${number(rollouts.length)}`) },
    shown.length === 0
      ? h(
          "p",
          { class: "empty" },
          "No policy is published yet. prestage-build policy publish makes the first.",
        )
      : h(
          "ul",
          { class: "rollout-list" },
          shown.map((one) =>
            h(
              "li",
              { "data-key": `${one.namespace}/${one.name}` },
              h(
                "p",
                { class: "rollout-line" },
                h("a", { href: href(["rollouts", one.namespace, one.name]) }, `${one.namespace}/${one.name}`),
                " ",
                rolloutBadge(one.state),
                h("span", { class: "muted" }, ` ${one.bundle}`),
              ),
              splitBar(progressParts(one), progressSentence(one)),
              h(
                "p",
                { class: "small" },
                progressSentence(one),
                one.batches.length ? `; ${openSentence(one, now())}.` : ".",
              ),
              strip(one, now()),
            ),
          ),
        ),
  );
}

function overTime(route, { history }) {
  const rows = series(history, (row) => grouped(row.states));
  const hours = range(route);
  return section(
    "States over time",
    {
      aside: h(
        "nav",
        { class: "ranges", "aria-label": "Time range" },
        RANGES.map(([value, label]) =>
          h(
            "a",
            { href: href([], { hours: value }), "aria-current": value === hours ? "true" : null },
            label,
          ),
        ),
      ),
    },
    stackedOverTime({
      id: "states",
      title: "Nodes by state over time",
      series: GROUPS,
      rows,
      merge: last,
      say: number,
      summary: levelSentence(GROUPS, rows, number),
    }),
  );
}

function traffic({ history, summary }) {
  const rows = series(history, (row) => ({ wan: row.bytes.received, site: row.bytes.fromSite }));
  const total = rows.reduce(
    (all, row) => ({ wan: all.wan + row.values.wan, site: all.site + row.values.site }),
    { wan: 0, site: 0 },
  );
  const saved =
    total.wan + total.site > 0 ? ` ${percent(total.site, total.wan + total.site)} came from neighbours.` : "";
  return section(
    "Bytes",
    {},
    h(
      "p",
      {},
      h("strong", {}, bytes(summary.bytesToday.received)),
      " from mirrors and ",
      h("strong", {}, bytes(summary.bytesToday.fromSite)),
      ` from neighbours today, in ${count(summary.reportsToday, "report")}.`,
    ),
    stackedOverTime({
      id: "bytes",
      title: "Bytes received over time",
      series: FLOWS,
      rows,
      merge: sum,
      say: bytes,
      summary: `${bytes(total.wan)} from mirrors and ${bytes(total.site)} from neighbours in the time shown.${saved}`,
    }),
  );
}

function causes(summary) {
  const most = Math.max(1, ...summary.failures.map((one) => one.nodes));
  return section(
    "Failures by cause",
    {},
    table({
      caption: "Nodes whose last install or fetch failed, by cause",
      compact: true,
      rows: [...summary.failures].sort((a, b) => b.nodes - a.nodes),
      rowKey: (row) => row.cause,
      empty: "The last install and fetch of every node went well.",
      columns: [
        { label: "Cause", primary: true, cell: (row) => outcomeBadge(row.cause) },
        { label: "Nodes", number: true, cell: (row) => number(row.nodes) },
        { label: "Share", class: "bar-cell", cell: (row) => bar(row.nodes, most) },
      ],
    }),
  );
}

function silence(summary) {
  const rows = [...summary.silentByAge].sort((a, b) => a.hours - b.hours).filter((row) => row.nodes > 0);
  const most = Math.max(1, ...rows.map((one) => one.nodes));
  return section(
    "Silence by age",
    {},
    table({
      caption: "Nodes that are silent for at least so long",
      compact: true,
      rows,
      rowKey: (row) => String(row.hours),
      empty: "Every node that should have reported has.",
      columns: [
        {
          label: "For at least",
          primary: true,
          cell: (row) => (row.hours >= 48 ? `${Math.round(row.hours / 24)} days` : `${row.hours} h`),
        },
        { label: "Nodes", number: true, cell: (row) => number(row.nodes) },
        { label: "Share", class: "bar-cell", cell: (row) => bar(row.nodes, most) },
      ],
    }),
    summary.oldestSilence
      ? h(
          "p",
          { class: "small" },
          "Longest: ",
          h("a", { href: href(["nodes", summary.oldestSilence.node]) }, summary.oldestSilence.node),
          ", heard ",
          age(summary.oldestSilence.lastSeen),
        )
      : null,
  );
}

function bar(n, most) {
  return h(
    "span",
    { class: "bar", "aria-hidden": "true" },
    h("span", { "width%": ((n / most) * 100).toFixed(1) }),
  );
}

function expiring({ repository, summary }) {
  const problem = summary.metadata?.problem ?? repository?.problem;
  return section(
    "Expiry of metadata",
    {},
    problem ? h("p", { class: "inline-problem" }, icon("warning"), problem) : null,
    table({
      caption: "When the repository's metadata expires, by role",
      compact: true,
      rows: [...(repository?.roles ?? [])].sort((a, b) => parseTime(a.expires) - parseTime(b.expires)),
      rowKey: (row) => row.role,
      empty: summary.metadata?.expires
        ? ["The metadata expires ", age(summary.metadata.expires), "."]
        : "The server reads no repository: [repository] in its configuration.",
      columns: [
        { label: "Role", primary: true, cell: (row) => row.role },
        { label: "Expires", cell: (row) => age(row.expires) },
        { label: "Version", number: true, cell: (row) => number(row.version) },
        { label: "Keys", number: true, cell: (row) => `${row.threshold} of ${row.keys.length}` },
      ],
    }),
  );
}

function parts(title, name, items, key, total) {
  const rows = [...items].sort((a, b) => b.nodes - a.nodes);
  const shown = rows.slice(0, 8);
  const most = Math.max(1, ...rows.map((one) => one.nodes));
  return section(
    title,
    {},
    table({
      caption: title,
      compact: true,
      rows: shown,
      rowKey: (row) => row[key],
      empty: "Nothing yet.",
      columns: [
        {
          label: name,
          primary: true,
          cell: (row) =>
            row[key]
              ? h("a", { href: href(["nodes"], { [key]: row[key] }) }, row[key])
              : h("span", { class: "muted" }, "none yet"),
        },
        { label: "Nodes", number: true, cell: (row) => number(row.nodes) },
        { label: "Share", number: true, class: "muted", cell: (row) => percent(row.nodes, total) },
        { label: "", class: "bar-cell", cell: (row) => bar(row.nodes, most) },
      ],
    }),
    rows.length > shown.length
      ? h(
          "p",
          { class: "small" },
          `And ${count(rows.length - shown.length, "more")}, which the node table can filter by.`.replace(
            "mores",
            "more",
          ),
        )
      : null,
  );
}
