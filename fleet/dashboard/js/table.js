// Tables: headers that say how they sort, rows that keep their identity, cells that name their column on a phone.

import { h, hidden, icon } from "./dom.js";

/**
 * A table. `columns`: [{key, label, cell(row) → child, sort: wire name, number: bool, primary: bool}]. `sorted`: the wire's
 * word, with "-" in front if descending. `sortHref(word)`: where a header leads. `compact`: small enough to stay a table on a phone.
 */
export function table({ caption, columns, rows, rowKey, sorted, sortHref, empty, compact }) {
  if (rows.length === 0 && empty) return h("p", { class: "empty" }, empty);
  return h(
    "div",
    { class: "table-scroll", role: "group", "aria-label": caption },
    h(
      "table",
      // Said outright, because on a phone rows are shown as cards, and browsers then forget that it is a table.
      { class: ["table", compact && "tight"], role: "table" },
      h("caption", { class: "sr-only" }, caption),
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map((column) => header(column, sorted, sortHref)),
        ),
      ),
      h(
        "tbody",
        { role: "rowgroup" },
        rows.map((row) =>
          h(
            "tr",
            { role: "row", "data-key": rowKey?.(row) ?? null },
            columns.map((column) => cell(column, row)),
          ),
        ),
      ),
    ),
  );
}

function header(column, sorted, sortHref) {
  const attributes = { scope: "col", role: "columnheader", class: column.number ? "number" : null };
  if (!column.label) return h("td", { role: "cell" });
  if (!column.sort) return h("th", attributes, column.label);
  const down = sorted === `-${column.sort}`;
  const up = sorted === column.sort;
  const next = up ? `-${column.sort}` : column.sort;
  return h(
    "th",
    { ...attributes, "aria-sort": up ? "ascending" : down ? "descending" : "none" },
    h(
      "a",
      { href: sortHref(next), class: ["sort", (up || down) && "sorted"] },
      column.label,
      icon(down ? "down" : up ? "up" : "sort"),
      hidden(
        up
          ? ", sorted ascending; sort descending"
          : down
            ? ", sorted descending; sort ascending"
            : ", sort ascending",
      ),
    ),
  );
}

function cell(column, row) {
  const tag = column.primary ? "th" : "td";
  return h(
    tag,
    {
      scope: column.primary ? "row" : null,
      role: column.primary ? "rowheader" : "cell",
      class: [column.number && "number", column.class],
      "data-label": column.label,
    },
    h("div", {}, column.cell(row)),
  );
}

/** Whatever is too wide for its place can be scrolled with the keyboard; what is not is no stop on anybody's way. */
export function markScrollers(root) {
  for (const box of root.querySelectorAll(".table-scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

/** Facts as name and value; those without a value are left out. */
export function facts(entries) {
  return h(
    "dl",
    { class: "facts" },
    entries
      .filter(([, value]) => value !== undefined && value !== null && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A section with its heading. */
export function section(title, props, ...children) {
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return h(
    "section",
    { class: ["panel", props?.class], "aria-labelledby": id },
    h("div", { class: "panel-head" }, h("h2", { id }, title), props?.aside),
    children,
  );
}
