// Charts: bars stacked over time and bars beside each other, each with a sentence that says what is in it and a table
// of the same numbers. Colour is never the only difference: bad things are hatched, and every bar has its words.

import { h } from "./dom.js";
import { now } from "./time.js";
import { moment, parseTime } from "./format.js";
import { setting } from "./settings.js";
import { table } from "./table.js";

const BARS = 96; // more are hairs

/**
 * At most `max` rows, equally long in time from first to last. Of rows in one slot `merge` makes one. Pure.
 * A slot without a row stays empty: where nothing was recorded, nothing is drawn.
 */
export function slots(rows, max, merge) {
  if (rows.length <= 1) return rows;
  const first = rows[0].at;
  const span = rows[rows.length - 1].at - first;
  const step = Math.max(...[0, ...gaps(rows)].slice(0, 2)) || 1;
  const wanted = Math.min(max, Math.max(2, Math.round(span / step) + 1));
  const out = Array.from({ length: wanted }, (_, i) => ({ at: first + (span * i) / (wanted - 1), rows: [] }));
  for (const row of rows)
    out[Math.min(wanted - 1, Math.round(((row.at - first) / span) * (wanted - 1)))].rows.push(row);
  return out.map((slot) =>
    slot.rows.length
      ? { ...merge(slot.rows), at: slot.rows[slot.rows.length - 1].at }
      : { at: slot.at, missing: true },
  );
}

/** The distance between neighbours that is most usual (the median), as a list of one. */
function gaps(rows) {
  const between = rows
    .slice(1)
    .map((row, i) => row.at - rows[i].at)
    .sort((a, b) => a - b);
  return [between[Math.floor(between.length / 2)]];
}

/** Of counts: the last known; they are a level. */
export const last = (rows) => rows[rows.length - 1];

/** Of bytes: all together; they are a flow. */
export function sum(rows) {
  const values = {};
  for (const row of rows)
    for (const [key, n] of Object.entries(row.values)) values[key] = (values[key] ?? 0) + n;
  return { values };
}

/**
 * Stacked bars over time. `series`: [{key, label}] bottom first; `rows`: [{at: ms, values: {key: n}}] oldest first;
 * `merge`: last or sum; `say(n)`: a value in words; `summary`: the sentence that stands for the picture.
 */
export function stackedOverTime({ id, title, series, rows, merge, say, summary }) {
  const drawn = slots(rows, BARS, merge);
  if (drawn.length < 2)
    return h("p", { class: "empty" }, "Not enough has been recorded yet to draw this; it grows by itself.");
  const total = (row) => series.reduce((all, one) => all + (row.values?.[one.key] ?? 0), 0);
  const top = Math.max(1, ...drawn.map(total));
  const readout = h(
    "p",
    { class: "chart-readout muted", id: `${id}-readout`, "aria-hidden": "true" },
    "\u00a0",
  );
  const picture = h(
    "div",
    {
      class: "chart",
      role: "img",
      "aria-labelledby": `${id}-summary`,
      on: {
        pointermove: point,
        pointerleave: () => {
          readout.textContent = "\u00a0";
        },
      },
    },
    drawn.map(bar),
  );

  function bar(row) {
    if (row.missing) return h("div", { class: "chart-bar is-missing" });
    return h(
      "div",
      { class: "chart-bar" },
      series.map((one) => {
        const n = row.values[one.key] ?? 0;
        return n > 0
          ? h("span", { class: `fill-${one.key}`, "height%": ((n / top) * 100).toFixed(2) })
          : null;
      }),
    );
  }

  function point(event) {
    const shown = event.currentTarget;
    const box = shown.getBoundingClientRect();
    const row =
      drawn[
        Math.max(
          0,
          Math.min(drawn.length - 1, Math.floor(((event.clientX - box.left) / box.width) * drawn.length)),
        )
      ];
    const place = document.getElementById(`${id}-readout`);
    if (!place) return;
    place.textContent = row.missing
      ? `${moment(row.at, setting("zone"))}: nothing recorded`
      : `${moment(row.at, setting("zone"))}: ${
          series
            .filter((one) => row.values[one.key])
            .map((one) => `${one.label} ${say(row.values[one.key])}`)
            .join(", ") || "nothing"
        }`;
  }

  return h(
    "figure",
    { class: "figure" },
    h("figcaption", { class: "sr-only" }, title),
    legend(series),
    h(
      "div",
      { class: "chart-frame" },
      h(
        "div",
        { class: "chart-scale", "aria-hidden": "true" },
        h("span", {}, say(top)),
        h("span", {}, say(0)),
      ),
      picture,
    ),
    h(
      "div",
      { class: "chart-times", "aria-hidden": "true" },
      marks(drawn).map((at) => h("span", {}, mark(at, drawn))),
    ),
    readout,
    h("p", { class: "chart-summary", id: `${id}-summary` }, summary),
    h(
      "details",
      { class: "as-table" },
      h("summary", {}, "The same as a table"),
      table({
        caption: title,
        rows: [...slots(rows, 24, merge)].reverse(),
        rowKey: (row) => String(row.at),
        columns: [
          { label: "Time", primary: true, cell: (row) => moment(row.at, setting("zone")) },
          ...series.map((one) => ({
            label: one.label,
            number: true,
            cell: (row) => (row.missing ? "–" : say(row.values[one.key] ?? 0)),
          })),
        ],
      }),
    ),
  );
}

function marks(drawn) {
  const n = Math.min(drawn.length, 4);
  return Array.from({ length: n }, (_, i) => drawn[Math.round((i * (drawn.length - 1)) / (n - 1 || 1))].at);
}

function mark(at, drawn) {
  const days = drawn[drawn.length - 1].at - drawn[0].at > 36 * 3600 * 1000;
  const zone = setting("zone") === "utc" ? "UTC" : undefined;
  return new Intl.DateTimeFormat(
    "en-GB",
    days
      ? { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZone: zone }
      : { hour: "2-digit", minute: "2-digit", timeZone: zone },
  ).format(at);
}

/** What each colour and hatching is. */
export function legend(series) {
  return h(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    series.map((one) => h("li", {}, h("span", { class: `swatch fill-${one.key}` }), one.label)),
  );
}

/**
 * One bar of parts, each part at least visible. `parts`: [{key, label, n}]. For screen readers it is the sentence in
 * `label`; the numbers themselves always stand beside it as text.
 */
export function splitBar(parts, label) {
  const total = parts.reduce((all, part) => all + part.n, 0);
  return h(
    "div",
    { class: "split", role: "img", "aria-label": label },
    total === 0
      ? h("span", { class: "split-part fill-none", "width%": 100 })
      : parts
          .filter((part) => part.n > 0)
          .map((part) =>
            h("span", {
              class: `split-part fill-${part.key}`,
              "width%": ((part.n / total) * 100).toFixed(3),
              title: `${part.label}: ${part.n}`,
            }),
          ),
  );
}

/** How a level has changed, as a sentence for those who do not see the picture and those who have no time for it. */
export function levelSentence(series, rows, say) {
  if (rows.length < 2) return "";
  const first = rows[0];
  const end = rows[rows.length - 1];
  const said = series
    .map(({ key, label }) => {
      const from = first.values[key] ?? 0;
      const to = end.values[key] ?? 0;
      const peak = rows.reduce(
        (best, row) => ((row.values[key] ?? 0) > (best.values[key] ?? 0) ? row : best),
        first,
      );
      const highest = peak.values[key] ?? 0;
      if (from === to && highest === to) return to === 0 ? null : `${label} ${say(to)} throughout`;
      const change = from === to ? `${label} ${say(to)} as before` : `${label} ${say(from)} → ${say(to)}`;
      return highest > Math.max(from, to)
        ? `${change} (at most ${say(highest)} at ${moment(peak.at, setting("zone"))})`
        : change;
    })
    .filter(Boolean);
  return said.length ? `${said.join("; ")}.` : "Nothing happened.";
}

/** Rows of the wire as rows of a chart, oldest first. */
export function series(rows, values) {
  return (rows ?? [])
    .map((row) => ({ at: parseTime(row.at), values: values(row) }))
    .filter((row) => row.at !== undefined && row.at <= now() + 3_600_000)
    .sort((a, b) => a.at - b.at);
}
