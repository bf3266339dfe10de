// Every published policy, and how far its bundle has come.

import { get } from "../api.js";
import { splitBar } from "../chart.js";
import { h } from "../dom.js";
import { count, number } from "../format.js";
import { href } from "../route.js";
import { progressParts, progressSentence } from "../rollout-words.js";
import { rolloutBadge } from "../states.js";
import { table } from "../table.js";
import { age } from "../time.js";

const ORDER = ["halted", "paused", "running", "unplanned", "done"];

export const page = {
  title: () => "Rollouts",
  every: 3000,
  wants: (kind) => kind === "rollout",

  async load(_, signal) {
    return (await get("rollouts", {}, signal)).items;
  },

  view(_, rollouts) {
    const rows = [...rollouts].sort(
      (a, b) =>
        ORDER.indexOf(a.state) - ORDER.indexOf(b.state) ||
        `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`),
    );
    return [
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Rollouts"),
        h("p", { class: "muted" }, count(rollouts.length, "policy", "policies")),
      ),
      h(
        "div",
        { class: "panel" },
        table({
          caption: "Rollouts, those that are stopped first",
          rows,
          rowKey: (row) => `${row.namespace}/${row.name}`,
          empty: "No policy is published yet. prestage-build policy publish makes the first.",
          columns: [
            {
              label: "Policy",
              primary: true,
              cell: (row) =>
                h("a", { href: href(["rollouts", row.namespace, row.name]) }, `${row.namespace}/${row.name}`),
            },
            {
              label: "State",
              cell: (row) => [
                rolloutBadge(row.state),
                row.reason ? h("span", { class: "muted small" }, ` ${row.reason}`) : null,
              ],
            },
            { label: "Bundle", cell: (row) => row.bundle },
            {
              label: "Begun",
              cell: (row) => (row.startedAt ? age(row.startedAt) : h("span", { class: "muted" }, "–")),
            },
            {
              label: "Progress",
              class: "wide",
              cell: (row) => [
                splitBar(progressParts(row), progressSentence(row)),
                h("span", { class: "small" }, progressSentence(row)),
              ],
            },
            { label: "Failed", number: true, cell: (row) => number(row.failed) },
          ],
        }),
      ),
    ];
  },
};
