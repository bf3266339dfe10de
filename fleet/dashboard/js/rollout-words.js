// A rollout in words and parts: how far it is, and what an act on it would do. Pure.

import { count, number, percent } from "./format.js";

const PARTS = [
  ["good", "Installed", (batch) => batch.installed],
  ["working", "Staged or installing", (batch) => batch.staged + batch.installing],
  ["waiting", "Waiting", (batch) => batch.waiting],
  ["absent", "Silent", (batch) => batch.silent],
  ["bad", "Failed or rolled back", (batch) => batch.failed + batch.rolledBack],
];

/** What one batch, or all of them together, is made of. */
export function batchParts(...batches) {
  return PARTS.map(([key, label, of]) => ({
    key,
    label,
    n: batches.reduce((all, batch) => all + of(batch), 0),
  }));
}

/** What a rollout is made of. */
export function progressParts(rollout) {
  if (rollout.batches.length > 0) return batchParts(...rollout.batches);
  return [
    { key: "good", label: "Installed", n: Math.max(0, rollout.finished - rollout.failed) },
    { key: "bad", label: "Failed or rolled back", n: rollout.failed },
    { key: "waiting", label: "Waiting", n: Math.max(0, rollout.nodes - rollout.finished) },
  ];
}

/** The batch that was opened last, as its place in the list; −1 before the first. `now` in milliseconds. */
export function openBatch(rollout, now) {
  let open = -1;
  rollout.batches.forEach((batch, i) => {
    if (!batch.notBefore || Date.parse(batch.notBefore) <= now) open = i;
  });
  return open;
}

/** "38 of 101 batches are open". */
export function openSentence(rollout, now) {
  const open = openBatch(rollout, now);
  if (open < 0) return "no batch is open yet";
  return `${number(open + 1)} of ${count(rollout.batches.length, "batch", "batches")} ${open === 0 ? "is" : "are"} open`;
}

/** What one batch is made of, in words. */
export function batchSentence(batch) {
  return (
    batchParts(batch)
      .filter((part) => part.n > 0)
      .map((part) => `${part.label.toLowerCase()} ${number(part.n)}`)
      .join(", ") || "no nodes"
  );
}

/** "1,204 of 10,000 installed (12.0 %), 3 failed". */
export function progressSentence(rollout) {
  const parts = Object.fromEntries(progressParts(rollout).map((part) => [part.key, part.n]));
  const more = [
    parts.working ? `${number(parts.working)} under way` : null,
    parts.bad ? `${number(parts.bad)} failed or rolled back` : null,
    parts.absent ? `${number(parts.absent)} silent` : null,
  ].filter(Boolean);
  return `${number(parts.good)} of ${count(rollout.nodes, "node")} installed (${percent(parts.good, rollout.nodes)})${more.length ? `, ${more.join(", ")}` : ""}`;
}

/** The counts that the words of a dialog need. */
export function standing(rollout) {
  const sum = (key) => rollout.batches.reduce((all, batch) => all + batch[key], 0);
  return {
    installed: sum("installed"),
    installing: sum("installing"),
    // Silent nodes have not been heard to begin; they are among those that may still be stopped.
    notBegun: sum("waiting") + sum("staged") + sum("silent"),
    failed: sum("failed") + sum("rolledBack"),
  };
}

/** The acts that make sense for a rollout in this state, the mildest first. */
export function possibleActs(rollout) {
  switch (rollout.state) {
    case "running":
      return ["pause", "halt", "rollback"];
    case "paused":
      return ["resume", "halt", "rollback"];
    case "halted":
      return ["resume", "rollback"];
    case "done":
      return ["rollback"];
    default:
      return [];
  }
}

/** What an act will do: {title, verb, danger, sentences}. */
export function actWords(act, rollout) {
  const name = `${rollout.namespace}/${rollout.name}`;
  const { installed, installing, notBegun, failed } = standing(rollout);
  const going =
    installing > 0
      ? `${count(installing, "node that is installing now goes", "nodes that are installing now go")} on to the end: an install is never interrupted.`
      : "No node is installing now.";
  const news =
    "Nodes learn it when they next look at the repository. One that cannot reach it goes on as far as the plan that it has allows.";
  const batches = rollout.batches.length;
  switch (act) {
    case "pause":
    case "halt":
      return {
        title: `${act === "pause" ? "Pause" : "Halt"} ${name}?`,
        verb: act === "pause" ? "Pause rollout" : "Halt rollout",
        danger: act === "halt",
        sentences: [
          `${count(notBegun, "node that has", "nodes that have")} not begun will not begin, in ${batches === 1 ? "the only batch" : `any of ${number(batches)} batches`}.`,
          going,
          `${count(installed, "node keeps", "nodes keep")} ${rollout.bundle}, which ${installed === 1 ? "it has" : "they have"} installed.`,
          act === "halt"
            ? "A halted rollout stands in red on everybody's overview until it is resumed or rolled back."
            : "Pausing is for now; halt it if something is wrong.",
          news,
        ],
      };
    case "resume":
      return {
        title: `Resume ${name}?`,
        verb: "Resume rollout",
        danger: false,
        sentences: [
          `${count(notBegun, "node")} may begin again, each when its batch and its maintenance window are open. Batches whose time has passed meanwhile are open at once.`,
          failed > 0
            ? `${count(failed, "node")} failed so far; they stay as they are.`
            : "No node failed so far.",
          news,
        ],
      };
    case "rollback": {
      const to = rollout.plan?.previous;
      return {
        title: `Roll back ${name}${to ? ` to ${to}` : ""}?`,
        verb: "Roll back",
        danger: true,
        sentences: [
          `The policy is published with ${to ? `bundle ${to}` : "the bundle that it named before"} instead of ${rollout.bundle}.`,
          `${count(installed, "node that has", "nodes that have")} ${rollout.bundle} ${installed === 1 ? "goes" : "go"} back to ${installed === 1 ? "its" : "their"} restore point in ${installed === 1 ? "its" : "their"} next maintenance window, where it leads there; a node without one stays and says so.`,
          `${count(notBegun, "node that has", "nodes that have")} not begun will not install it.`,
          "Git stays the truth: revert the commit there too, or the next publish says that it differs.",
          news,
        ],
      };
    }
    default:
      throw new Error(`there is no act ${act}`);
  }
}
