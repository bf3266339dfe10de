// The states of a node, in the order in which they matter to whoever is on duty: one table for words, icons and colours.
//
// The words of the wire are those of format/src/status.rs, plus two that only the centre can know: silent and never
// reported.

import { h, icon } from "./dom.js";

/** state: its label, its group, and what it means. The group gives colour and icon; the label says it in words. */
export const STATES = new Map([
  [
    "needsPerson",
    { label: "Needs a person", group: "bad", icon: "person", means: "could not be brought back by itself" },
  ],
  [
    "failed",
    {
      label: "Failed",
      group: "bad",
      icon: "failed",
      means: "the last install failed or was rolled back; in its pre-patch state",
    },
  ],
  [
    "quarantined",
    { label: "Quarantined", group: "refused", icon: "shield", means: "refuses a bundle or the repository" },
  ],
  ["silent", { label: "Silent", group: "absent", icon: "silent", means: "should have reported and has not" }],
  [
    "never-reported",
    { label: "Never reported", group: "absent", icon: "never", means: "enrolled, and not heard of since" },
  ],
  [
    "deferred",
    {
      label: "Deferred",
      group: "waiting",
      icon: "waiting",
      means: "something was not ready; it tries again by itself",
    },
  ],
  [
    "unknown",
    { label: "Unknown", group: "waiting", icon: "unknown", means: "never ran, or is not configured" },
  ],
  [
    "fetching",
    { label: "Fetching", group: "working", icon: "fetching", means: "parts of a bundle are still missing" },
  ],
  [
    "staged",
    { label: "Staged", group: "working", icon: "staged", means: "everything is there; waits for its window" },
  ],
  [
    "installing",
    {
      label: "Installing",
      group: "working",
      icon: "installing",
      means: "an install has begun and not ended",
    },
  ],
  [
    "awaitingReboot",
    { label: "Awaiting reboot", group: "working", icon: "reboot", means: "takes effect at the next boot" },
  ],
  [
    "upToDate",
    { label: "Up to date", group: "good", icon: "good", means: "patched as far as the repository goes" },
  ],
]);

/** The groups that charts show, bottom first. */
export const GROUPS = [
  { key: "good", label: "Up to date" },
  { key: "working", label: "Under way" },
  { key: "waiting", label: "Waiting" },
  { key: "absent", label: "Silent" },
  { key: "refused", label: "Quarantined" },
  { key: "bad", label: "Failed" },
];

/** What is known of a state; a word that this page is too old for is shown as it came. */
export function describe(state) {
  return (
    STATES.get(state) ?? { label: String(state ?? "unknown"), group: "waiting", icon: "unknown", means: "" }
  );
}

/** A state as icon and word. */
export function badge(state, extra) {
  const known = describe(state);
  return h(
    "span",
    { class: ["badge", `is-${known.group}`, extra], title: known.means || null },
    icon(known.icon),
    known.label,
  );
}

/** Counts by state as counts by group. */
export function grouped(counts) {
  const sums = Object.fromEntries(GROUPS.map((group) => [group.key, 0]));
  for (const [state, n] of Object.entries(counts ?? {})) sums[describe(state).group] += n;
  return sums;
}

// ------------------------------------------------------------------------------------------------------------------
// How steps end (format/src/report.rs) and how a rollout stands.

const OUTCOMES = {
  installed: ["Installed", "good", "good"],
  upToDate: ["Nothing to do", "good", "good"],
  staged: ["Staged", "working", "staged"],
  deferred: ["Deferred", "waiting", "waiting"],
  integrityFailure: ["Integrity failure", "refused", "shield"],
  trustFailure: ["Trust failure", "refused", "shield"],
  installFailed: ["Install failed", "bad", "failed"],
  rolledBack: ["Rolled back", "bad", "rollback"],
  needsPerson: ["Needs a person", "bad", "person"],
};

/** How a step ended, as icon and word. */
export function outcomeBadge(outcome) {
  const [label, group, picture] = OUTCOMES[outcome] ?? [String(outcome ?? "–"), "waiting", "unknown"];
  return h("span", { class: ["badge", `is-${group}`] }, icon(picture), label);
}

const ROLLOUT = {
  running: ["Running", "working", "installing"],
  paused: ["Paused", "waiting", "pause"],
  halted: ["Halted", "bad", "halt"],
  done: ["Done", "good", "good"],
  unplanned: ["Without a plan", "waiting", "unknown"],
};

/** How a rollout stands, as icon and word. */
export function rolloutBadge(state) {
  const [label, group, picture] = ROLLOUT[state] ?? [String(state ?? "–"), "waiting", "unknown"];
  return h("span", { class: ["badge", `is-${group}`] }, icon(picture), label);
}
