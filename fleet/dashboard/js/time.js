// Moments on the page: in the viewer's zone with UTC on hover, or the other way round, and ages that go on counting.
//
// The server's clock counts, not the viewer's: a laptop that is an hour off must not show fresh nodes as silent.

import { h } from "./dom.js";
import { moment, parseTime, relative, utc } from "./format.js";
import { setting } from "./settings.js";

let ahead = 0; // milliseconds that the server's clock is ahead of ours

/** Takes the Date header of an answer, which has whole seconds: differences below two seconds are none. */
export function heardServerTime(header) {
  const at = Date.parse(header ?? "");
  if (Number.isNaN(at)) return;
  const difference = at - Date.now();
  ahead = Math.abs(difference) < 2000 ? 0 : difference;
}

/** Now, by the server's clock. */
export function now() {
  return Date.now() + ahead;
}

/** A moment in full. */
export function when(value) {
  return make(value, "at");
}

/** How long ago, going on by itself; the full moment on hover. */
export function age(value) {
  return make(value, "age");
}

function make(value, kind) {
  const at = parseTime(value);
  if (at === undefined) return h("span", { class: "muted" }, "–");
  const element = h("time", { datetime: new Date(at).toISOString(), "data-time": kind });
  write(element);
  return element;
}

function write(element) {
  const at = Date.parse(element.dateTime);
  const zone = setting("zone");
  const other = zone === "utc" ? moment(at, "local") : utc(at);
  const text = element.dataset.time === "age" ? relative(at, now()) : moment(at, zone);
  const title = element.dataset.time === "age" ? `${moment(at, zone)} · ${other}` : other;
  if (element.textContent !== text) element.textContent = text;
  if (element.title !== title) element.title = title;
}

/** Brings every moment on the page up to date. */
export function rewriteTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-time]")) write(element);
}

/** Keeps ages counting. */
export function startClock() {
  setInterval(() => document.hidden || rewriteTimes(), 5000);
  document.addEventListener("visibilitychange", () => document.hidden || rewriteTimes());
}
