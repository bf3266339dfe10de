// The only door to the server: JSON in and out, problems as errors, and who heard from it when.
//
// Addresses are relative to the page, so the dashboard also works below a path of a reverse proxy.

import { heardServerTime } from "./time.js";

const BASE = "api/v1/";
const PATIENCE = 20_000; // milliseconds; an overview of 10,000 nodes takes a hundredth of that

/** What went wrong, in the words of problem+json (RFC 9457) where the server said any. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail ?? "";
  }

  /** Whether nothing was heard from the server at all, or a proxy answered in its place. */
  get away() {
    return this.status === 0 || this.status === 502 || this.status === 504;
  }
}

const listeners = { answered: [], away: [], signedOut: [] };

/** Calls `then` whenever the server has "answered", is "away", or says that nobody is "signedOut"… in. */
export function onServer(event, then) {
  listeners[event].push(then);
}

function tell(event, detail) {
  for (const then of listeners[event]) then(detail);
}

/** The address of something in the API; parameters without a value are left out. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat())
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
  }
  const text = query.toString();
  return BASE + path + (text ? `?${text}` : "");
}

/** A path of segments that may hold anything. */
export function path(...segments) {
  return segments.map((segment) => encodeURIComponent(segment)).join("/");
}

/** Reads. */
export function get(where, parameters, signal) {
  return call("GET", address(where, parameters), undefined, signal);
}

/** Does something; the header is what a page of another origin cannot send. */
export function post(where, body, method = "POST") {
  return call(method, address(where), body ?? {});
}

async function call(method, url, body, signal) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    headers["X-Prestage-Csrf"] = "1";
  }
  let answer;
  let text;
  try {
    answer = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      redirect: "error",
      cache: "no-cache", // ask each time, with the ETag that the browser kept
      signal: AbortSignal.any([AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])]),
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    const late = error.name === "TimeoutError";
    const problem = new Problem(
      0,
      late ? "the server did not answer in time" : "the server cannot be reached",
    );
    tell("away", problem);
    throw problem;
  }
  heardServerTime(answer.headers.get("Date"));
  if (answer.ok) {
    tell("answered");
    return read(answer, text);
  }
  const problem = await refusal(answer, text);
  if (problem.away) tell("away", problem);
  else tell("answered");
  if (answer.status === 401) tell("signedOut", problem);
  throw problem;
}

function read(answer, text) {
  if (answer.status === 204 || text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem(
      0,
      "the server's answer could not be read",
      "it is not JSON; is something else answering in its place?",
    );
  }
}

function refusal(answer, text) {
  try {
    const problem = JSON.parse(text);
    return new Problem(
      answer.status,
      problem.title ?? `the server answered ${answer.status}`,
      problem.detail,
    );
  } catch {
    return new Problem(answer.status, `the server answered ${answer.status} ${answer.statusText}`.trim());
  }
}
