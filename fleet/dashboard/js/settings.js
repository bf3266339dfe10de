// What a viewer has chosen on this machine: theme and zone. Nothing here is a secret, and nothing is sent anywhere.

const DEFAULTS = { theme: "auto", zone: "local" };
const PREFIX = "prestage.";

/** A choice, or its default; also where the browser keeps nothing. */
export function setting(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? DEFAULTS[name];
  } catch {
    return DEFAULTS[name];
  }
}

/** Keeps a choice. */
export function choose(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    // Private windows may keep nothing: the choice holds until the page is closed.
    DEFAULTS[name] = value;
  }
}
