// Whether what is on the page is true now: server-sent events, and a state that says so in words.
//
// Four states: live (events come), polling (answers come, events do not), reconnecting, and stale (nothing heard for
// a while; what is shown is from then). The page is told that something changed, never what: it reads again, at most
// once in a while (refresh.js), so that a storm of reports is one request.

import { address, get, onServer } from "./api.js";

const QUIET = 30_000; // without an event for so long, the server is asked whether it is there
const STALE = 45_000; // without any word for so long, what is shown is old
const GRACE = 5000; // the server ends every stream now and then; if it is opened again at once, nobody needs to know
const RETRY = [1000, 2000, 5000, 10_000, 15_000]; // between tries to hear events again, then always the last
const HIDDEN = 60_000; // a tab that nobody looks at for so long gives its connection back

const EVENTS = ["summary", "node", "rollout"];

/** Makes the connection; `onChange(state)` when the state changes, `onEvent(kind, data)` for what comes. */
export function startLive({ onChange, onEvent }) {
  let source;
  let opened = false;
  let tries = 0;
  let retry;
  let heard = Date.now();
  let away = false;
  let state = "reconnecting";
  let stopped = true;
  let hiding;
  let probing = false;

  function decide() {
    const silence = Date.now() - heard;
    const next =
      silence > STALE || (away && silence > STALE / 3)
        ? "stale"
        : away
          ? "reconnecting"
          : opened || (state === "live" && silence < GRACE)
            ? "live"
            : tries > 2
              ? "polling"
              : "reconnecting";
    if (next !== state) {
      state = next;
      onChange(state, heard);
    }
  }

  function word() {
    heard = Date.now();
    away = false;
    decide();
  }

  function open() {
    clearTimeout(retry);
    source?.close();
    source = new EventSource(address("events"));
    source.onopen = () => {
      opened = true;
      const again = tries > 0;
      tries = 0;
      word();
      if (again) onEvent("summary"); // what was missed meanwhile
    };
    source.onerror = () => {
      // The browser's own retry gives up for good after an HTTP error, so the next try is ours.
      opened = false;
      source.close();
      const wait = RETRY[Math.min(tries, RETRY.length - 1)] * (0.75 + Math.random() / 2);
      tries += 1;
      retry = setTimeout(open, wait);
      probe();
    };
    for (const kind of EVENTS) {
      source.addEventListener(kind, (event) => {
        word();
        onEvent(kind, parse(event.data));
      });
    }
    source.addEventListener("ping", word);
  }

  /** Asks for something small; the answer, or that there is none, is heard below. */
  async function probe() {
    if (probing || stopped) return;
    probing = true;
    try {
      await get("session");
    } catch {
      // Heard by onServer.
    } finally {
      probing = false;
    }
  }

  onServer("answered", word);
  onServer("away", () => {
    away = true;
    decide();
  });

  setInterval(() => {
    if (stopped) return;
    if (Date.now() - heard > QUIET) probe();
    decide();
  }, 1000);

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => {
        source?.close();
        clearTimeout(retry);
        opened = false;
        source = undefined;
      }, HIDDEN);
    } else if (!stopped && !source) {
      open();
      onEvent("summary");
    }
  });

  return {
    start() {
      if (!stopped) return;
      stopped = false;
      heard = Date.now();
      open();
    },
    stop() {
      stopped = true;
      clearTimeout(retry);
      source?.close();
      source = undefined;
      opened = false;
    },
    retryNow() {
      tries = 0;
      open();
      probe();
    },
    get heard() {
      return heard;
    },
    get state() {
      return state;
    },
  };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
