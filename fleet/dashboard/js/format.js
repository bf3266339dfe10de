// Values as a person reads them. Pure: no document, no clock of its own.

const integer = new Intl.NumberFormat("en-GB");

/** 10000 → "10,000". */
export function number(n) {
  return Number.isFinite(n) ? integer.format(n) : "–";
}

/** number(n) and the noun that goes with it. */
export function count(n, one, many = `${one}s`) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

/** A share of a whole; never "0 %" for something nor "100 %" for not quite everything. */
export function percent(part, whole) {
  if (!whole) return "–";
  const share = (part / whole) * 100;
  if (part > 0 && share < 0.1) return "< 0.1 %";
  if (part < whole && share > 99.9) return "> 99.9 %";
  return `${share >= 99.95 || share === 0 ? share.toFixed(0) : share < 10 ? share.toFixed(1) : share.toFixed(part === whole ? 0 : 1)} %`;
}

/** 1536 → "1.5 KiB". */
export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  let value = n;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

/** Seconds as the two units that matter: 3725 → "1 h 2 min". */
export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (!Number.isFinite(total)) return "–";
  const days = Math.floor(total / 86400);
  const hours = Math.floor((total % 86400) / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  if (days >= 14) return `${days} days`;
  if (days > 0) return `${days} ${days === 1 ? "day" : "days"}${hours ? ` ${hours} h` : ""}`;
  if (hours > 0) return `${hours} h${minutes ? ` ${minutes} min` : ""}`;
  if (minutes >= 10) return `${minutes} min`;
  if (minutes > 0) return `${minutes} min${total % 60 ? ` ${total % 60} s` : ""}`;
  return `${total} s`;
}

/** How long ago, or how far ahead, in one unit that does not flicker: "just now", "4 min ago", "in 3 h". */
export function relative(then, now) {
  const seconds = Math.round((now - then) / 1000);
  const distance = Math.abs(seconds);
  if (distance < 10) return seconds >= 0 ? "just now" : "now";
  const text =
    distance < 60
      ? `${distance} s`
      : distance < 3600
        ? `${Math.floor(distance / 60)} min`
        : distance < 48 * 3600
          ? `${Math.floor(distance / 3600)} h`
          : `${Math.floor(distance / 86400)} days`;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

const written = {
  local: new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" }),
  utc: new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" }),
};

/** A moment in full, in the viewer's zone or, if `zone` is "utc", in UTC. */
export function moment(at, zone) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "–";
  return zone === "utc" ? `${written.utc.format(date)} UTC` : written.local.format(date);
}

/** A moment in UTC, to the second. */
export function utc(at) {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "–" : `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** Milliseconds since 1970 of a wire time: RFC 3339, or seconds since 1970. */
export function parseTime(value) {
  if (value === null || value === undefined) return undefined;
  const at = typeof value === "number" ? value * 1000 : Date.parse(value);
  return Number.isNaN(at) ? undefined : at;
}

/** The first digits of a digest; the whole one belongs into a title. */
export function short(digest) {
  return String(digest ?? "")
    .replace(/^sha256:/, "")
    .slice(0, 12);
}
