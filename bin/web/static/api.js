// Calls of the API, and streams of events that survive a lost connection.

export const API = "/api/v1";
const RETRY_MS = 2000, POLL_MS = 3000;

// An error of the API (RFC 9457): message, status, code, field, hint. Status 0: no answer.
export class ApiError extends Error {
  constructor({ status, code, detail, field = null, hint = null }) {
    super(detail);
    Object.assign(this, { status, code, field, hint });
  }
}

// Events "lost", "back" and "signed-out".
export const connection = new EventTarget();
let probe = null;

// Tells the page that the server does not answer, and asks again until it does.
function lost() {
  if (probe !== null) return;
  connection.dispatchEvent(new Event("lost"));
  probe = setInterval(async () => {
    const answer = await fetch(`${API}/session`).catch(() => null);
    if (answer === null) return;
    clearInterval(probe);
    probe = null;
    connection.dispatchEvent(new Event("back"));
  }, RETRY_MS);
}

async function problemOf(response) {
  const text = await response.text();
  try {
    const { code = "error", detail = text, field, hint } = JSON.parse(text);
    return new ApiError({ status: response.status, code, detail, field, hint });
  } catch {
    const detail = text || response.statusText;
    return new ApiError({ status: response.status, code: "error", detail });
  }
}

// Calls an endpoint and returns its JSON, or null for an empty answer. A Blob is sent as it is.
async function call(method, address, body, { signal } = {}) {
  const headers = method === "GET" ? {} : { "X-Visionloop": "1" };
  const isBytes = body instanceof Blob || body instanceof ArrayBuffer;
  if (body !== undefined && !isBytes) headers["Content-Type"] = "application/json";
  if (body instanceof ArrayBuffer) headers["Content-Type"] = "application/octet-stream";
  const content = body === undefined || isBytes ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch(address, { method, headers, body: content, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost();
    throw new ApiError({ status: 0, code: "offline", detail: "the server does not answer" });
  }
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.status === 401) connection.dispatchEvent(new Event("signed-out"));
    throw problem;
  }
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call("GET", API + path, undefined, options);
export const post = (path, body = {}, options = {}) => call("POST", API + path, body, options);
export const patch = (path, body, options) => call("PATCH", API + path, body, options);
export const remove = (path, options) => call("DELETE", API + path, undefined, options);
export const describeApi = (options) => call("GET", "/api/openapi.json", undefined, options);

// Returns ?name=value for the values that are given.
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// Calls handlers[event](data, id) for each event of a stream until `signal` aborts.
//
// The browser reconnects by itself and names the last event that it has received. The stream is
// closed while the page is hidden, because a browser allows six connections to a server over all
// its windows, and goes on from the same event afterwards. Where the server refuses a stream,
// `poll(cursor)` is called every few seconds: it returns {events: [{id, event, data}], cursor}.
// cursor: id of the last event that the page has.
export function stream(path, handlers, signal, { poll = null, cursor = null } = {}) {
  let source = null, timer = null;
  function receive(event, data, id) {
    if (id) cursor = id;
    handlers[event]?.(data, id);
  }
  function open() {
    close();
    if (document.hidden || signal.aborted) return;
    const joint = path.includes("?") ? "&" : "?";
    const start = cursor === null ? "" : `${joint}cursor=${cursor}`;
    const opened = new EventSource(API + path + start);
    source = opened;
    for (const event of Object.keys(handlers)) {
      opened.addEventListener(event, (message) => {
        receive(event, parsed(message.data), message.lastEventId);
      });
    }
    opened.addEventListener("error", () => {
      if (source !== opened) return;
      if (opened.readyState === EventSource.CLOSED) timer = setTimeout(refused, POLL_MS);
      else get("/session", { signal }).catch(() => null); // shows that the server is gone
    });
  }
  async function refused() {
    try {
      const answer = poll ? await poll(cursor) : null;
      for (const { event, data, id } of answer?.events || []) receive(event, parsed(data), id);
      if (answer) cursor = answer.cursor;
    } catch (error) {
      if (error.status === 401 || error.status === 404) return;
    }
    if (!signal.aborted) open();
  }
  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }
  document.addEventListener("visibilitychange", open, { signal });
  signal.addEventListener("abort", close);
  open();
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// Returns a function that calls `action` at once or, within `pause` ms of the last call, after it;
// calls in between are one call.
export function throttled(action, pause, signal) {
  let isBusy = false, isWaiting = false;
  async function run() {
    if (signal.aborted) return;
    if (isBusy) {
      isWaiting = true;
      return;
    }
    [isBusy, isWaiting] = [true, false];
    await action();
    setTimeout(() => {
      isBusy = false;
      if (isWaiting) run();
    }, pause);
  }
  return run;
}

// Calls `action` at once and then every `seconds` while the page is visible, until `signal` aborts.
export function every(seconds, action, signal) {
  const run = () => document.hidden || action();
  const timer = setInterval(run, 1000 * seconds);
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearInterval(timer));
  return action();
}
