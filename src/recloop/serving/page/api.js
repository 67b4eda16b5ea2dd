// Requests to the service, the token they carry, and elements of the page.
const TOKEN = "recloop-token";
let tell = () => {};

export class Refused extends Error {
  // retry_s: when to ask again; 0 where that would change nothing.
  constructor(message, retry_s = 0) {
    super(message);
    this.name = "Refused";
    this.retry_s = retry_s;
  }
}

export function onProblem(listener) {
  tell = listener;
}

export const get = (path, signal) => ask(path, { signal });
export const post = (path, body, signal) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

async function ask(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const lost = new Refused("The service does not answer. Is it still running?");
    tell(lost.message);
    throw lost;
  }
  if (reply.status === 401) {
    await askForToken();
    return ask(path, options);
  }
  const body = await reply.json().catch(() => null);
  if (!reply.ok) {
    const refused = new Refused(body?.error?.message ?? `the service answered ${reply.status}`, Number(reply.headers.get("retry-after")));
    tell(refused.message);
    throw refused;
  }
  tell("");
  return body;
}

let asking = null;
function askForToken() {
  const dialog = document.getElementById("token-dialog");
  asking ??= new Promise((resolve) => {
    if (sessionStorage.getItem(TOKEN)) document.getElementById("token-note").textContent = "That was not the token.";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, document.getElementById("token").value);
      asking = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault(), { once: true });
    dialog.showModal();
  });
  return asking;
}

export function debounced(work, wait_ms) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), wait_ms);
  };
}

// The newest call wins: one that was overtaken is aborted, and its answer dropped. One that finds no room is made again.
export function latest(work) {
  let running;
  return async function again(...args) {
    running?.abort();
    const mine = (running = new AbortController());
    try {
      return await work(mine.signal, ...args);
    } catch (error) {
      if (error.name !== "AbortError" && error.name !== "Refused") throw error;
      if (error.retry_s) setTimeout(() => mine === running && again(...args), 1000 * error.retry_s);
    }
  };
}

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const MINUS = "\u2212";
export const signed = (value, digits = 2) => (value < 0 ? MINUS : "+") + Math.abs(value).toFixed(digits);
export const fixed = (value, digits = 2) => (value < 0 ? MINUS : "") + Math.abs(value).toFixed(digits);
