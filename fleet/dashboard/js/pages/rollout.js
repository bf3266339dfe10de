// One rollout: how it stands and why, batch by batch, and what can be done about it: always with a reason, after it was
// said in words what will happen.

import { get, path, post } from "../api.js";
import { splitBar } from "../chart.js";
import { ask } from "../dialog.js";
import { h, icon } from "../dom.js";
import { count, number, percent } from "../format.js";
import { href } from "../route.js";
import {
  actWords,
  batchParts,
  batchSentence,
  openBatch,
  openSentence,
  possibleActs,
  progressParts,
  progressSentence,
} from "../rollout-words.js";
import { strip } from "../strip.js";
import { rolloutBadge } from "../states.js";
import { facts, section, table } from "../table.js";
import { age, now, when } from "../time.js";

const BUTTONS = {
  pause: ["Pause …", "pause", ""],
  halt: ["Halt …", "halt", "danger"],
  resume: ["Resume …", "installing", "primary"],
  rollback: ["Roll back …", "rollback", "danger-quiet"],
};
const NEAR = 8; // batches around the open one that are shown without asking

export const page = {
  title: (route) => `${route.segments[1]}/${route.segments[2]}`,
  every: 3000,
  wants: (kind) => kind === "rollout",

  load: (route, signal) => get(path("rollouts", route.segments[1], route.segments[2]), {}, signal),

  view(route, rollout, context) {
    return [
      h("p", { class: "crumbs" }, h("a", { href: href(["rollouts"]) }, "Rollouts")),
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, `${rollout.namespace}/${rollout.name}`),
        rolloutBadge(rollout.state),
        h("p", { class: "muted" }, "bundle ", rollout.bundle),
      ),
      banner(rollout),
      controls(rollout, context),
      section(
        "Progress",
        {},
        splitBar(progressParts(rollout), progressSentence(rollout)),
        legend(progressParts(rollout)),
        h("p", {}, progressSentence(rollout), "."),
        facts([
          [
            "Nodes",
            h(
              "a",
              { href: href(["nodes"], { policy: `${rollout.namespace}/${rollout.name}` }) },
              count(rollout.nodes, "node"),
            ),
          ],
          ["Begun", rollout.startedAt && [when(rollout.startedAt), " (", age(rollout.startedAt), ")"]],
          ["Strategy", rollout.strategy],
          [
            "Halts by itself",
            rollout.failureThreshold === null
              ? "no threshold is set"
              : `when more than ${rollout.failureThreshold} % of the finished nodes failed; now ${percent(rollout.failed, rollout.finished)} of ${number(rollout.finished)}`,
          ],
          ["At most at a time in a site", rollout.maxUnavailablePerSite],
          ["Had before", rollout.plan?.previous],
        ]),
      ),
      batches(rollout),
      actions(rollout),
    ];
  },
};

function banner(rollout) {
  const by = [rollout.by ? ` by ${rollout.by}` : null, rollout.at ? [" ", age(rollout.at)] : null];
  if (rollout.state === "halted" || rollout.state === "paused") {
    return h(
      "section",
      {
        class: ["why", rollout.state === "halted" ? "is-alarm" : "is-waiting-note"],
        "aria-label": "Why it stands still",
      },
      icon(rollout.state === "halted" ? "halt" : "pause"),
      h(
        "div",
        {},
        h(
          "p",
          { class: "why-text" },
          rollout.state === "halted" ? "Halted" : "Paused",
          by,
          rollout.reason ? `: ${rollout.reason}` : ".",
        ),
        h("p", {}, "No node begins. Those that were installing went on to the end."),
      ),
    );
  }
  if (rollout.stuck) {
    return h(
      "section",
      { class: "why is-alarm", "aria-label": "Why it does not go on" },
      icon("warning"),
      h("p", { class: "why-text" }, rollout.stuck),
    );
  }
  return null;
}

function controls(rollout, context) {
  const acts = possibleActs(rollout);
  if (acts.length === 0) return null;
  if (context.session.role === "viewer") {
    return h(
      "p",
      { class: "muted" },
      "Your role (viewer) may look at rollouts; pausing or halting needs the role operator.",
    );
  }
  return h(
    "div",
    { class: "controls", role: "group", "aria-label": "What can be done" },
    acts.map((act) => {
      const [label, picture, look] = BUTTONS[act];
      return h(
        "button",
        {
          type: "button",
          id: `act-${act}`,
          "data-key": act,
          class: ["button", look],
          on: { click: () => control(act, rollout, context) },
        },
        icon(picture),
        label,
      );
    }),
  );
}

async function control(act, rollout, { reload, announce }) {
  const words = actWords(act, rollout);
  const done = await ask({
    ...words,
    reason: "Why",
    body: h(
      "ul",
      {},
      words.sentences.map((sentence) => h("li", {}, sentence)),
    ),
    act: (reason) => post(path("rollouts", rollout.namespace, rollout.name, act), { reason }),
  });
  if (done) {
    announce(done.message ?? `${words.verb}: done.`);
    reload();
  }
}

function legend(parts) {
  return h(
    "ul",
    { class: "legend" },
    parts
      .filter((part) => part.n > 0)
      .map((part) =>
        h("li", {}, h("span", { class: `swatch fill-${part.key}` }), `${part.label} ${number(part.n)}`),
      ),
  );
}

function batches(rollout) {
  if (rollout.batches.length === 0)
    return section(
      "Batches",
      {},
      h(
        "p",
        { class: "empty" },
        "No plan is published: nodes of this policy all go at once, or wait for one.",
      ),
    );
  const open = openBatch(rollout, now());
  const near = rollout.batches.filter((batch, i) => i >= open - NEAR && i <= open + NEAR / 2);
  const all = near.length === rollout.batches.length;
  const local = rollout.plan?.localTime;
  return section(
    "Batches",
    {},
    h(
      "p",
      {},
      openSentence(rollout, now()),
      ".",
      rollout.state === "halted" || rollout.state === "paused"
        ? ` While it is ${rollout.state}, no node of any batch begins.`
        : "",
      local ? " Times are those of each node's own clock on the wall." : "",
    ),
    strip(rollout, now()),
    batchTable(all ? "Batches" : "Batches around the one that was opened last", near, rollout, open),
    all
      ? null
      : h(
          "details",
          { class: "as-table", "data-key": "all-batches" },
          h("summary", {}, `All ${number(rollout.batches.length)} batches`),
          batchTable("All batches", rollout.batches, rollout, open),
        ),
  );
}

function batchTable(caption, rows, rollout, open) {
  const place = new Map(rollout.batches.map((batch, i) => [batch, i]));
  const cell = (key) => (row) => (row[key] ? number(row[key]) : h("span", { class: "muted" }, "0"));
  return table({
    caption,
    rows,
    rowKey: (row) => row.batch,
    columns: [
      { label: "Batch", primary: true, cell: (row) => (row.batch === "canary" ? "Canary" : row.batch) },
      {
        label: "Opens",
        cell: (row) => [
          place.get(row) <= open ? icon("good", "is-good") : icon("waiting"),
          " ",
          row.notBefore ? when(row.notBefore) : "at once",
        ],
      },
      { label: "Nodes", number: true, cell: cell("nodes") },
      { label: "Progress", class: "bar-cell", cell: (row) => splitBar(batchParts(row), batchSentence(row)) },
      { label: "Installed", number: true, cell: cell("installed") },
      { label: "Under way", number: true, cell: (row) => cell("n")({ n: row.staged + row.installing }) },
      { label: "Waiting", number: true, cell: cell("waiting") },
      { label: "Silent", number: true, cell: cell("silent") },
      { label: "Failed", number: true, cell: (row) => bad(row.failed) },
      { label: "Rolled back", number: true, cell: (row) => bad(row.rolledBack) },
    ],
  });
}

const bad = (n) => (n ? h("strong", { class: "is-bad" }, number(n)) : h("span", { class: "muted" }, "0"));

function actions(rollout) {
  return section(
    "What was done to it",
    {},
    table({
      caption: "What was done to this rollout, newest first",
      rows: rollout.actions,
      rowKey: (row) => String(row.id),
      empty: "Nobody has touched it since it was published.",
      columns: [
        { label: "When", primary: true, cell: (row) => when(row.at) },
        { label: "What", cell: (row) => row.action },
        { label: "Who", cell: (row) => row.who },
        { label: "Why", class: "wide", cell: (row) => row.reason },
        { label: "Outcome", cell: (row) => row.outcome },
      ],
    }),
  );
}
