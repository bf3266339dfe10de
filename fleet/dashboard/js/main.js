// Where it begins: who is there, which page, and how long what it shows is true.
//
// The order of the work: session → shell (nav, search, live state) → route → page.load → page.view → morph; again when
// events say that something changed, at most once in `page.every`.

import { get, onServer, post } from "./api.js";
import { announce } from "./dialog.js";
import { h, icon, morph } from "./dom.js";
import { startLive } from "./live.js";
import { failure, pageFor } from "./pages.js";
import { changed, href, parse } from "./route.js";
import { choose, setting } from "./settings.js";
import { markScrollers } from "./table.js";
import { age, rewriteTimes, startClock, when } from "./time.js";

const AT_LEAST_EVERY = 60_000; // read again though no event came

const place = (id) => document.getElementById(id);
let session; // {name, role} or undefined
let shown; // the page that is shown: {page, route, data, loadedAt}
let loading; // AbortController of the read under way
let due; // timer of the next read
let dirty = false;

// ------------------------------------------------------------------------------------------------- who is there

async function begin() {
  startClock();
  try {
    session = await get("session");
  } catch (problem) {
    if (problem.status !== 401) {
      showFailure(problem, begin);
      return;
    }
  }
  window.addEventListener("hashchange", () => navigate());
  enter();
}

function enter() {
  const known = Boolean(session);
  place("top").hidden = !known;
  place("nav").hidden = !known;
  document.body.classList.toggle("signed-out", !known);
  if (known) live.start();
  else live.stop();
  navigate();
}

/** After a login: who it is, and on to where they wanted to go. */
function signedIn(who) {
  session = who;
  enter();
}

async function signOut() {
  try {
    await post("session", {}, "DELETE");
  } catch {
    // Away: the cookie stays until it runs out, and the page says below that the server is away.
  }
  session = undefined;
  enter();
}

onServer("signedOut", () => {
  if (!session) return;
  session = undefined;
  enter();
});

// ----------------------------------------------------------------------------------------------------- the page

function navigate() {
  const route = parse(location.hash);
  const same = shown && shown.route.segments.join("/") === route.segments.join("/") && session;
  loading?.abort();
  clearTimeout(due);
  dirty = false;
  const page = pageFor(route, session);
  shown = { page, route, data: same && shown.page === page ? shown.data : undefined };
  closeMenu();
  drawNav();
  place("q").value =
    route.segments[0] === "nodes" && route.segments.length === 1 ? (route.query.get("q") ?? "") : "";
  if (!same) {
    window.scrollTo(0, 0);
    document.title = "Prestage";
  }
  read(!same);
}

/** Reads what the page needs and shows it; `fresh`: the person has just come here. */
async function read(fresh) {
  const mine = shown;
  const controller = new AbortController();
  loading = controller;
  dirty = false;
  const slow = fresh && setTimeout(() => loading === controller && showLoading(), 150);
  try {
    const data = await mine.page.load(mine.route, controller.signal, session);
    if (mine !== shown || controller.signal.aborted) return;
    mine.data = data;
    mine.loadedAt = Date.now();
    draw(fresh);
  } catch (problem) {
    if (mine !== shown || controller.signal.aborted) return;
    if (mine.data === undefined || problem.status === 404 || problem.status === 403)
      showFailure(problem, () => read(true));
    else drawBanner(problem);
  } finally {
    clearTimeout(slow);
    if (loading === controller) {
      loading = undefined;
      if (session) schedule(dirty ? mine.page.every : AT_LEAST_EVERY);
    }
  }
}

function draw(fresh) {
  // Somebody who marks text in order to copy it must not lose it.
  if (
    !fresh &&
    !document.getSelection().isCollapsed &&
    place("page").contains(document.getSelection().anchorNode)
  ) {
    schedule(2000);
    return;
  }
  const context = { session, reload: () => read(false), announce, go, signedIn, signOut };
  const view = h("div", {}, shown.page.view(shown.route, shown.data, context));
  reveal(view);
  const title = shown.page.title(shown.route, shown.data);
  document.title = title ? `${title} · Prestage` : "Prestage";
  drawBanner();
  if (fresh) focusHeading();
}

/** Shows it, and says which address it belongs to. */
function reveal(view) {
  place("page").removeAttribute("aria-busy");
  place("page").dataset.shown = location.hash;
  const heading = view.querySelector("h1");
  if (heading) heading.tabIndex = -1;
  morph(place("page"), view);
  markScrollers(place("page"));
}

/** Whoever cannot see that another page came, hears its heading. */
function focusHeading() {
  const heading = place("page").querySelector("h1");
  if (!heading || heading.contains(document.activeElement)) return;
  if (shown.page.focus) place(shown.page.focus)?.focus();
  else heading.focus({ preventScroll: true });
}

function go(address) {
  if (location.hash === address) read(false);
  else location.hash = address;
}

function schedule(wait) {
  clearTimeout(due);
  due = setTimeout(() => (document.hidden ? schedule(AT_LEAST_EVERY) : read(false)), wait);
}

function showLoading() {
  place("page").setAttribute("aria-busy", "true");
  morph(place("page"), h("div", {}, h("p", { class: "empty" }, "Loading …")));
}

function showFailure(problem, again) {
  reveal(h("div", {}, failure(problem, again)));
  document.title = "Problem · Prestage";
}

// ------------------------------------------------------------------------------------------------- what is live

const live = startLive({
  onChange: () => {
    drawLive();
    drawBanner();
  },
  onEvent: (kind, data) => {
    if (!shown || !session || !shown.page.wants?.(kind, data, shown.route)) return;
    if (loading) dirty = true;
    else {
      const wait = Math.max(0, (shown.loadedAt ?? 0) + shown.page.every - Date.now());
      if (!dirty) schedule(wait);
      dirty = true;
    }
  },
});

const WORDS = {
  live: ["Live", "good", "is-good"],
  polling: ["Every minute", "waiting", "is-waiting"],
  reconnecting: ["Reconnecting …", "reboot", "is-waiting"],
  stale: ["Stale", "warning", "is-bad"],
};

function drawLive() {
  const [word, picture, look] = WORDS[live.state];
  const note =
    live.state === "polling" ? "Events do not come through; what is shown is read again every minute." : null;
  morph(
    place("live-word"),
    h("span", {}, h("span", { class: ["badge", look], title: note }, icon(picture), word)),
  );
  morph(
    place("live-since"),
    h(
      "span",
      {},
      live.state === "stale" || live.state === "reconnecting"
        ? [" since ", when(new Date(live.heard).toISOString())]
        : null,
    ),
  );
}

/** Above the page: that what it shows is from then, and why. */
function drawBanner(problem) {
  const old = session && (live.state === "stale" || problem);
  document.body.classList.toggle("stale", Boolean(old));
  const from = shown?.loadedAt ? new Date(shown.loadedAt).toISOString() : undefined;
  const said = !old
    ? null
    : h(
        "div",
        { class: "banner", role: "alert" },
        icon("warning"),
        h(
          "p",
          {},
          h(
            "strong",
            {},
            problem && !problem.away
              ? `This page could not be read again: ${problem.message}. `
              : "The server does not answer. ",
          ),
          from ? ["What you see is from ", age(from), "; nodes may have changed since. "] : null,
          "Nodes go on by themselves, as far as what was signed for them allows.",
        ),
        h(
          "button",
          {
            type: "button",
            class: "button",
            on: {
              click: () => {
                live.retryNow();
                read(false);
              },
            },
          },
          "Try now",
        ),
      );
  morph(place("banner"), h("div", {}, said));
}

// -------------------------------------------------------------------------------------------------- the shell

const NAV = [
  ["", "Overview", "overview"],
  ["nodes", "Nodes", "nodes"],
  ["rollouts", "Rollouts", "rollouts"],
  ["quarantine", "Quarantine", "shield"],
  ["compliance", "Compliance", "calendar"],
  ["audit", "Audit log", "audit"],
  ["access", "Access", "key", ["operator", "admin"]],
];

function drawNav() {
  if (!session) return;
  const here = shown.route.segments[0] ?? "";
  const links = NAV.filter(([, , , roles]) => !roles || roles.includes(session.role)).map(
    ([where, label, picture]) =>
      h(
        "li",
        {},
        h(
          "a",
          { href: href(where ? [where] : []), "aria-current": here === where ? "page" : null },
          icon(picture),
          label,
        ),
      ),
  );
  morph(
    place("nav"),
    h(
      "nav",
      {},
      h("ul", { class: "nav-links" }, links),
      h(
        "div",
        { class: "nav-foot" },
        select(
          "theme",
          "Theme",
          [
            ["auto", "As the system"],
            ["light", "Light"],
            ["dark", "Dark"],
          ],
          applyTheme,
        ),
        select(
          "zone",
          "Times",
          [
            ["local", "In my zone"],
            ["utc", "In UTC"],
          ],
          () => {
            rewriteTimes();
            if (shown?.data !== undefined) draw(false);
          },
        ),
        h("p", { class: "who" }, session.name, h("span", { class: "muted" }, ` · ${session.role}`)),
        h("button", { type: "button", class: "button quiet", on: { click: signOut } }, "Sign out"),
      ),
    ),
  );
}

function select(name, label, options, then) {
  const id = `set-${name}`;
  return h(
    "div",
    { class: "field small" },
    h("label", { for: id }, label),
    h(
      "select",
      {
        id,
        value: null,
        on: {
          change: (event) => {
            choose(name, event.target.value);
            then();
          },
        },
      },
      options.map(([value, text]) => h("option", { value, selected: setting(name) === value }, text)),
    ),
  );
}

function applyTheme() {
  const theme = setting("theme");
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function closeMenu() {
  place("menu-button").setAttribute("aria-expanded", "false");
  document.body.classList.remove("menu-open");
}

window.addEventListener("resize", () => markScrollers(place("page")));

place("menu-button").addEventListener("click", () => {
  const open = !document.body.classList.contains("menu-open");
  document.body.classList.toggle("menu-open", open);
  place("menu-button").setAttribute("aria-expanded", String(open));
  if (open) place("nav").querySelector("a")?.focus();
});

place("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = place("q").value.trim();
  const route = parse(location.hash);
  const onNodes = route.segments[0] === "nodes" && route.segments.length === 1;
  go(onNodes ? changed(route, { q }) : href(["nodes"], { q }));
});

place("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (place("page").querySelector("h1") ?? place("main")).focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
    closeMenu();
    place("menu-button").focus();
  }
  const typing = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && session) {
    event.preventDefault();
    place("q").focus();
    place("q").select();
  }
});

drawLive();
begin();
