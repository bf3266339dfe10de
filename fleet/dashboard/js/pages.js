// Which page belongs to which address. A page is a value:
//
//   title(route, data)             what the window is called
//   load(route, signal, session)   reads what it needs; a promise
//   view(route, data, context)     elements; context: {session, reload, go, announce, signedIn}
//   wants(kind, data, route)       whether an event ("summary", "node", "rollout") concerns it
//   every                          milliseconds between two reads because of events, at least

import { h, icon } from "./dom.js";
import { page as access } from "./pages/access.js";
import { page as audit } from "./pages/audit.js";
import { page as compliance } from "./pages/compliance.js";
import { page as login } from "./pages/login.js";
import { page as node } from "./pages/node.js";
import { page as nodes } from "./pages/nodes.js";
import { page as overview } from "./pages/overview.js";
import { page as quarantine } from "./pages/quarantine.js";
import { page as rollout } from "./pages/rollout.js";
import { page as rollouts } from "./pages/rollouts.js";

/** The page of an address; nobody who is not signed in sees another than the login. */
export function pageFor(route, session) {
  if (!session) return login;
  const [first, second, third, ...rest] = route.segments;
  if (rest.length > 0) return nowhere;
  if (first === undefined) return overview;
  if (first === "nodes") return third !== undefined ? nowhere : second === undefined ? nodes : node;
  if (first === "rollouts") return second === undefined ? rollouts : third === undefined ? nowhere : rollout;
  const single = { quarantine, compliance, audit, access }[first];
  if (!single || second !== undefined) return nowhere;
  return first === "access" && session.role === "viewer" ? forbidden : single;
}

const nowhere = {
  title: () => "No such page",
  load: async () => null,
  view: () => [
    h("h1", {}, "There is no such page"),
    h("p", {}, "The address may have been cut off on its way. ", h("a", { href: "#/" }, "To the overview")),
  ],
  every: 60_000,
};

const forbidden = {
  title: () => "You may not see this",
  load: async () => null,
  view: () => [
    h("h1", {}, "You may not see this"),
    h("p", {}, "Giving access needs the role operator or admin. ", h("a", { href: "#/" }, "To the overview")),
  ],
  every: 60_000,
};

/** In place of a page that could not be read. */
export function failure(problem, again) {
  const title =
    problem.status === 404
      ? "There is nothing here"
      : problem.status === 403
        ? "You may not see this"
        : problem.away
          ? "The server does not answer"
          : "This could not be read";
  const advice =
    problem.status === 403
      ? "Somebody with the role admin can give you a token that may."
      : problem.status === 404
        ? "It may have been removed, or the address is cut off."
        : problem.away
          ? "Nodes go on by themselves, as far as what was signed for them allows. Look at the service prestage-fleet on its machine, and at the proxy before it."
          : "If it stays so, the server's journal says more.";
  return [
    h("h1", {}, icon("warning", "is-bad"), title),
    h("p", {}, `${problem.message}.`),
    h("p", { class: "muted" }, advice),
    h(
      "p",
      {},
      h("button", { type: "button", class: "button primary", on: { click: again } }, "Try again"),
      " ",
      h("a", { href: "#/" }, "To the overview"),
    ),
  ];
}
