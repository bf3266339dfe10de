// One node: how it is and why it is not patched, in words; what happened to it; what it can go back to; what it has.

import { get, path, post } from "../api.js";
import { ask } from "../dialog.js";
import { h, icon } from "../dom.js";
import { bytes, count, duration, number, parseTime, percent, short } from "../format.js";
import { href } from "../route.js";
import { badge, outcomeBadge } from "../states.js";
import { facts, section, table } from "../table.js";
import { age, when } from "../time.js";
import { clockOff } from "./nodes.js";

export const page = {
  title: (route) => route.segments[1],
  every: 3000,
  wants: (kind, data, route) =>
    kind === "node" && (!data?.ids || data.more || data.ids.includes(route.segments[1])),

  async load(route, signal) {
    const id = route.segments[1];
    const [node, drift] = await Promise.all([
      get(path("nodes", id), {}, signal),
      get("drift", {}, signal).catch(() => null),
    ]);
    const packages = node.inventory
      ? await get(path("nodes", id, "inventory"), {}, signal).catch(() => null)
      : null;
    return { ...node, drift, packages };
  },

  view(route, data, context) {
    const { node } = data;
    const status = data.status?.status ?? {};
    return [
      h("p", { class: "crumbs" }, h("a", { href: href(["nodes"]) }, "Nodes")),
      h(
        "div",
        { class: "page-head" },
        h("h1", { class: "name" }, node.node),
        badge(node.state, "large"),
        h("p", { class: "muted" }, node.lastSeen ? ["last heard ", age(node.lastSeen)] : "never heard of"),
      ),
      why(data),
      h("div", { class: "columns" }, identity(data, status), bundle(data, status)),
      refused(status),
      steps(status),
      history(data),
      installs(data),
      inventory(data),
      key(data, context),
    ];
  },
};

/** What stands between this node and being patched; or that nothing does. */
function why({ node, why: reason }) {
  const bad = ["needsPerson", "failed", "quarantined"].includes(node.state);
  const calm = !reason && node.state === "upToDate";
  return h(
    "section",
    {
      class: ["why", calm ? "is-calm" : bad ? "is-alarm" : "is-waiting-note"],
      "aria-label": "Why it is not patched",
    },
    icon(calm ? "good" : bad ? "warning" : node.state === "silent" ? "silent" : "info"),
    h(
      "div",
      {},
      h(
        "p",
        { class: "why-text" },
        reason ??
          (node.state === "upToDate"
            ? "Patched as far as the repository goes."
            : node.summary || "It has not said anything yet."),
      ),
      reason && node.summary && !reason.includes(node.summary)
        ? h("p", {}, h("span", { class: "muted" }, "It says: "), node.summary)
        : null,
      node.failingSince
        ? h("p", {}, "Failing since ", when(node.failingSince), " (", age(node.failingSince), ").")
        : null,
      node.state === "silent"
        ? h("p", {}, "What it is doing now is not known; the rest of this page is what it said last.")
        : null,
      node.clockOff
        ? h("p", {}, `Its ${clockOff(node.clockOff)}: windows and expiry are decided by that clock.`)
        : null,
    ),
  );
}

function identity({ node, metadataExpires }, status) {
  return section(
    "Node",
    {},
    facts([
      ["Variant", node.variant && h("a", { href: href(["nodes"], { variant: node.variant }) }, node.variant)],
      ["Site", node.site && h("a", { href: href(["nodes"], { site: node.site }) }, node.site)],
      ["Policy", node.policy && policyLink(node.policy)],
      ["Labels", labels(node.labels)],
      ["Agent", node.agentVersion],
      [
        "Status written",
        status.updatedAt && [when(status.updatedAt), h("span", { class: "muted" }, " by its own clock")],
      ],
      ["Its metadata expires", metadataExpires && age(metadataExpires)],
      ["Looks again", status.nextFetch && [age(status.nextFetch.at), `: ${status.nextFetch.why}`]],
      ["Reboot asked for", status.rebootRequired ? "yes" : null],
      ["Reports waiting there", status.reportsQueued ? number(status.reportsQueued) : null],
      [
        "Cured by itself",
        Object.entries(status.healed ?? {})
          .map(([what, n]) => `${what}: ${n}`)
          .join(", "),
      ],
    ]),
  );
}

function policyLink(policy) {
  const [namespace, name] = policy.split("/");
  return name ? h("a", { href: href(["rollouts", namespace, name]) }, policy) : policy;
}

function labels(all) {
  const pairs = Object.entries(all ?? {});
  if (pairs.length === 0) return null;
  return h(
    "ul",
    { class: "labels" },
    pairs.map(([key, value]) =>
      h(
        "li",
        {},
        h("a", { class: "chip", href: href(["nodes"], { label: `${key}=${value}` }) }, `${key}=${value}`),
      ),
    ),
  );
}

function bundle({ node, restorePoint }, status) {
  const { installed, plan, transfer } = status;
  const done = plan && plan.bytesNeeded ? Math.min(100, (plan.bytesPresent / plan.bytesNeeded) * 100) : 0;
  return section(
    "Bundle and way back",
    {},
    facts([
      [
        "Installed",
        installed
          ? [
              h(
                "a",
                { href: href(["nodes"], { bundle: installed.bundle.version }) },
                installed.bundle.version,
              ),
              ` (cycle ${installed.bundle.cycle}), ${count(installed.packages, "package")}, `,
              age(installed.at),
            ]
          : node.bundle || "none yet",
      ],
      [
        "Prepared",
        plan && [
          plan.bundle.version,
          `, ${count(plan.packages, "package")}: `,
          plan.complete ? "everything is there" : `${bytes(plan.bytesPresent)} of ${bytes(plan.bytesNeeded)}`,
          plan.complete
            ? null
            : h(
                "span",
                { class: "bar", role: "img", "aria-label": percent(plan.bytesPresent, plan.bytesNeeded) },
                h("span", { "width%": done.toFixed(1) }),
              ),
        ],
      ],
      [
        "Kept back",
        plan?.keptBack?.length
          ? h(
              "ul",
              { class: "plain-list" },
              plan.keptBack.map((one) => h("li", {}, one)),
            )
          : null,
      ],
      [
        "Transfer",
        transfer &&
          `${bytes(transfer.bytesDone)} of ${bytes(transfer.bytesTotal)} from ${transfer.source}, ${bytes(transfer.rate)}/s${transfer.cap ? ` of ${bytes(transfer.cap)}/s allowed` : ""}`,
      ],
      [
        "Restore point",
        restorePoint
          ? restorePointWords(restorePoint)
          : "none: prestage rollback has nothing to go back to here",
      ],
      ["Mirrors put aside", asideList(status.mirrorsAside)],
      ["Neighbours put aside", asideList(status.peersAside)],
    ]),
  );
}

function restorePointWords(point) {
  return [
    h("span", { class: "mono" }, `${point.kind ?? ""} ${point.id ?? ""}`.trim()),
    point.before ? `, the node as it was before ${point.before.version}` : null,
  ];
}

function asideList(list) {
  if (!list?.length) return null;
  return h(
    "ul",
    { class: "plain-list" },
    list.map((one) =>
      h("li", {}, h("span", { class: "mono" }, one.name), ` until `, when(one.until), `: ${one.why}`),
    ),
  );
}

function refused(status) {
  const rows = status.quarantine ?? [];
  if (rows.length === 0) return null;
  return section(
    "Refused here",
    {},
    table({
      caption: "Bundles that this node refuses",
      rows,
      rowKey: (row) => row.bundle.index,
      columns: [
        {
          label: "Bundle",
          primary: true,
          cell: (row) =>
            h("a", { href: href(["quarantine"], { bundle: row.bundle.version }) }, row.bundle.version),
        },
        { label: "Since", cell: (row) => age(row.since) },
        { label: "Exit code", number: true, cell: (row) => row.exitCode },
        { label: "What was wrong", class: "wide", cell: (row) => row.reason },
        { label: "The way out", class: "wide", cell: (row) => row.wayOut },
      ],
    }),
  );
}

/** The last fetch and the last install, with all that they said. */
function steps(status) {
  const rows = [status.install, status.fetch].filter(Boolean);
  if (rows.length === 0) return null;
  return section(
    "Last steps",
    {},
    rows.map((step) =>
      h(
        "div",
        { class: "step", "data-key": step.step },
        h(
          "p",
          { class: "step-head" },
          h("strong", {}, step.step === "install" ? "Install" : "Fetch"),
          " ",
          outcomeBadge(step.outcome),
          h(
            "span",
            { class: "muted" },
            " exit code ",
            step.exitCode,
            ", ",
            age(step.at),
            `, took ${duration(step.seconds)}`,
            step.bytesReceived
              ? `, ${bytes(step.bytesReceived)} from mirrors in ${count(step.requests, "request")}`
              : "",
            step.bytesFromSite ? `, ${bytes(step.bytesFromSite)} from neighbours` : "",
            step.networkSeen
              ? `; the package manager saw: ${step.networkSeen.join(", ") || "no network"}`
              : "",
          ),
        ),
        h("pre", { class: "log", tabindex: "0", "aria-label": `What the ${step.step} said` }, step.message),
      ),
    ),
  );
}

function history({ reports, node }) {
  return section(
    "What happened",
    {},
    table({
      caption: `The last ${reports.length} reports, newest first`,
      rows: reports,
      rowKey: (row) => row.report.id,
      empty: "No report has come from it yet.",
      columns: [
        { label: "When", primary: true, cell: (row) => [when(row.report.at), late(row)] },
        { label: "Step", cell: (row) => row.report.step },
        { label: "Outcome", cell: (row) => outcomeBadge(row.report.outcome) },
        { label: "Bundle", cell: (row) => row.report.bundle?.version ?? h("span", { class: "muted" }, "–") },
        {
          label: "Message",
          class: "wide",
          cell: (row) => [h("span", { class: "message" }, row.report.message), changes(row.report)],
        },
        { label: "Took", number: true, cell: (row) => duration(row.report.seconds) },
        {
          label: "Bytes",
          number: true,
          cell: (row) => bytes((row.report.bytesReceived ?? 0) + (row.report.bytesFromSite ?? 0)),
        },
      ],
    }),
    reports.length >= 50
      ? h(
          "p",
          { class: "small" },
          "Older ones: ",
          h("a", { href: `api/v1/${path("nodes", node.node, "reports")}` }, "all reports as JSON"),
        )
      : null,
  );
}

function late({ received, report }) {
  const delay = (parseTime(received) - parseTime(report.at)) / 1000;
  if (!(delay > 3600)) return null;
  return h("span", { class: "muted small" }, ` came ${duration(delay)} later`);
}

function changes(report) {
  const list = report.changes ?? [];
  if (list.length === 0) return null;
  return h(
    "details",
    { "data-key": `changes-${report.id}` },
    h("summary", {}, count(list.length, "package")),
    h(
      "ul",
      { class: "plain-list mono" },
      list.map((one) => h("li", {}, `${one.name}:${one.arch} ${one.from ?? "new"} → ${one.to ?? "removed"}`)),
    ),
  );
}

function installs({ installed }) {
  if (installed.length === 0) return null;
  return section(
    "Which bundle when",
    {},
    table({
      caption: "What was installed when, newest first",
      rows: installed,
      rowKey: (row) => row.since,
      columns: [
        { label: "Bundle", primary: true, cell: (row) => row.bundle },
        { label: "Cycle", cell: (row) => row.cycle },
        { label: "From", cell: (row) => when(row.since) },
        { label: "Until", cell: (row) => (row.until ? when(row.until) : "now") },
        {
          label: "Installed set",
          cell: (row) =>
            row.inventory
              ? h("span", { class: "mono", title: row.inventory }, short(row.inventory))
              : h("span", { class: "muted" }, "–"),
        },
      ],
    }),
  );
}

function inventory({ node, inventory: digest, packages, drift }) {
  return section(
    "Installed packages and drift",
    {},
    driftWords(node, digest, drift),
    digest
      ? h(
          "p",
          {},
          "Installed set ",
          h("span", { class: "mono", title: digest }, short(digest)),
          ". ",
          h("a", { href: href(["nodes"], { inventory: digest }) }, "All nodes with the same set"),
        )
      : h("p", { class: "muted" }, "It has not told yet what is installed."),
    packages?.packages
      ? h(
          "details",
          { class: "as-table", "data-key": "packages" },
          h("summary", {}, count(packages.packages.length, "package")),
          table({
            caption: "Installed packages",
            rows: packages.packages,
            columns: [
              { label: "Package", primary: true, cell: (row) => row.name },
              { label: "Version", cell: (row) => h("span", { class: "mono" }, row.version) },
              { label: "Arch", cell: (row) => row.arch },
            ],
          }),
        )
      : digest
        ? h("p", { class: "muted" }, "The list itself has not come yet; the server has asked for it.")
        : null,
  );
}

function driftWords(node, digest, drift) {
  const group = drift?.items.find(
    (one) => one.variant === node.variant && one.bundle === node.bundle && !one.label,
  );
  if (!group || !digest || group.sets.length === 0) return null;
  const mine = group.sets.find((one) => one.inventory === digest);
  const what = node.bundle
    ? `with ${node.variant} and ${node.bundle}`
    : `with ${node.variant} and no bundle yet`;
  if (group.sets.length === 1 && mine)
    return h(
      "p",
      {},
      icon("good", "is-good"),
      ` No drift: all ${count(group.nodes, "node")} ${what} have the same packages.`,
    );
  if (mine && mine === group.sets[0])
    return h(
      "p",
      {},
      icon("good", "is-good"),
      ` It has what most have: ${number(mine.nodes)} of ${count(group.nodes, "node")} ${what} have the same packages.`,
    );
  return h(
    "p",
    {},
    icon("warning", "is-refused"),
    ` Drift: ${mine ? (mine.nodes === 1 ? "only this one" : `only ${number(mine.nodes)}`) : "few"} of ${count(group.nodes, "node")} ${what} have these packages; ${number(group.sets[0].nodes)} have `,
    h("a", { href: href(["nodes"], { inventory: group.sets[0].inventory }) }, "another set"),
    ".",
  );
}

function key({ node, key: known }, { session, reload, announce }) {
  if (!known) return null;
  const may = session.role !== "viewer" && known.state !== "revoked";
  return section(
    "Key",
    {},
    facts([
      [
        "State",
        known.state === "revoked"
          ? h("span", { class: "badge is-bad" }, icon("failed"), "Revoked")
          : known.state,
      ],
      ["Key id", h("span", { class: "mono", title: known.keyid }, short(known.keyid))],
      ["Enrolled", [when(known.since), known.how ? `, by ${known.how}` : null]],
      [
        "Revoked",
        known.revokedAt && [when(known.revokedAt), known.revokedWhy ? `: ${known.revokedWhy}` : null],
      ],
    ]),
    may
      ? h(
          "button",
          {
            type: "button",
            class: "button",
            id: "revoke",
            on: { click: () => revoke(node, reload, announce) },
          },
          "Revoke its key …",
        )
      : null,
  );
}

async function revoke(node, reload, announce) {
  const done = await ask({
    title: `Revoke the key of ${node.node}?`,
    verb: "Revoke key",
    danger: true,
    reason: "Why",
    body: h(
      "ul",
      {},
      h("li", {}, "Nothing that it sends is accepted any more, and it leaves the counts of the fleet."),
      h("li", {}, "It goes on patching itself by what is signed: revoking stops its word, not its updates."),
      h("li", {}, "To take it back, an admin registers a key for it again."),
    ),
    act: (reason) => post(path("nodes", node.node, "revoke"), { reason }),
  });
  if (done) {
    announce(done.message ?? `The key of ${node.node} is revoked.`);
    reload();
  }
}
