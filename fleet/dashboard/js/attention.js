// What is wrong, since when, and what to do: the top of the overview. Pure, so that a test can ask it anything.

import { count, duration, number, parseTime } from "./format.js";
import { href } from "./route.js";

const DAY = 24 * 3600 * 1000;
// Renewed by hand in a key ceremony, which takes a while to arrange.
const BY_HAND = new Set(["root", "targets", "bundles", "policies"]);
const CEREMONY = 30 * DAY;

/**
 * A list of {key, level: "bad" | "warn" | "info", title, since, text, todo, href}, the worst first. `data`: {summary, rollouts,
 * repository, since: {state: wire time}}; `now` in milliseconds.
 */
export function attention(data, now) {
  const found = [...nodesInTrouble(data), ...rollouts(data), ...metadata(data, now), ...small(data)];
  const rank = { bad: 0, warn: 1, info: 2 };
  return found.sort((a, b) => rank[a.level] - rank[b.level]);
}

function nodesInTrouble({ summary, since = {} }) {
  const of = (state) => summary.states[state] ?? 0;
  const list = (state, sort = "failingSince") => href(["nodes"], { state, sort });
  const found = [];
  const add = (state, item) =>
    of(state) > 0 && found.push({ key: state, since: since[state], href: list(state, item.sort), ...item });
  add("needsPerson", {
    level: "bad",
    title: `${count(of("needsPerson"), "node needs", "nodes need")} a person`,
    text: "A rollback failed or was not possible.",
    todo: "Log in to each; exit code 6 in the manual says what to look at.",
  });
  add("failed", {
    level: "bad",
    title: `${count(of("failed"), "node")} failed to install`,
    text: "They are in their pre-patch state and will not try this bundle again.",
    todo: "Look at the causes below; mend the package in the next bundle.",
  });
  add("quarantined", {
    level: "bad",
    title: `${count(of("quarantined"), "node refuses", "nodes refuse")} a bundle`,
    text: "Nothing of it was installed there.",
    todo: "One mirror for all of them? Look at the mirror. One node alone? Treat it as broken into.",
    href: href(["quarantine"]),
  });
  const silent = of("silent");
  add("silent", {
    level: silent > summary.total / 20 ? "bad" : "warn",
    title: `${count(silent, "node is", "nodes are")} silent`,
    since: summary.oldestSilence?.lastSeen,
    text: "They should have reported and did not. What they are doing now is not known.",
    todo: "Many at one site: its line. One alone: the machine, or its timers.",
    sort: "lastSeen",
  });
  return found;
}

function rollouts({ rollouts: items = [] }) {
  const found = [];
  for (const one of items) {
    const name = `${one.namespace}/${one.name}`;
    const item = { key: `rollout ${name}`, href: href(["rollouts", one.namespace, one.name]) };
    const left = `${number(one.nodes - one.finished)} of ${count(one.nodes, "node")} have not finished.`;
    if (one.state === "halted") {
      found.push({
        ...item,
        level: "bad",
        title: `Rollout ${name} is halted`,
        since: one.at,
        text: `${one.reason ? `“${one.reason}”${one.by ? `, ${one.by}` : ""}. ` : ""}${left}`,
        todo: "Find the cause; then resume it, or roll it back.",
      });
    } else if (one.stuck) {
      found.push({
        ...item,
        level: "warn",
        title: `Rollout ${name} does not go on`,
        text: `${one.stuck}. ${left}`.replace("..", "."),
        todo: "Look at the batch that is open.",
      });
    } else if (one.state === "paused") {
      found.push({
        ...item,
        level: "info",
        title: `Rollout ${name} is paused`,
        since: one.at,
        text: `${one.reason ? `“${one.reason}”${one.by ? `, ${one.by}` : ""}. ` : ""}${left}`,
        todo: "Resume it when the reason has gone.",
      });
    }
  }
  return found;
}

function metadata({ summary, repository }, now) {
  const found = [];
  if (summary.metadata?.problem) {
    found.push({
      key: "metadata",
      level: "bad",
      title: "The repository's metadata is in trouble",
      text: `${summary.metadata.problem}`,
      todo: "When it expires, nodes install nothing new. Look at whatever runs prestage-build refresh-timestamp.",
    });
  }
  for (const role of repository?.roles ?? []) {
    const left = parseTime(role.expires) - now;
    const renew = BY_HAND.has(role.role)
      ? "Arrange the key ceremony that signs it anew."
      : "Look at whatever runs prestage-build refresh-timestamp.";
    if (left <= 0) {
      found.push({
        key: `role ${role.role}`,
        level: "bad",
        title: `The metadata of ${role.role} has expired`,
        since: role.expires,
        text: "Nodes install nothing new.",
        todo: renew,
      });
    } else if (BY_HAND.has(role.role) && left < CEREMONY) {
      found.push({
        key: `role ${role.role}`,
        level: left < 3 * DAY ? "bad" : "warn",
        title: `The metadata of ${role.role} expires in ${duration(left / 1000)}`,
        text: "From then on nodes install nothing new.",
        todo: renew,
      });
    }
  }
  return found;
}

function small({ summary }) {
  const found = [];
  const never = summary.states["never-reported"] ?? 0;
  if (never > 0) {
    found.push({
      key: "never",
      level: "info",
      title: `${count(never, "node has", "nodes have")} never reported`,
      text: "Enrolled, and not heard of since.",
      todo: "Is the machine on, and its report timer?",
      href: href(["nodes"], { state: "never-reported" }),
    });
  }
  if (summary.clockOff > 0) {
    found.push({
      key: "clock",
      level: "info",
      title: `${count(summary.clockOff, "node has", "nodes have")} a wrong clock`,
      text: "Windows and expiry are decided by that clock.",
      todo: "Look at its time service; the page of each node says how much it is off.",
    });
  }
  return found;
}
