// Tabs, the run's name and state, and which view belongs to which method.
import { get, onProblem } from "./api.js";
import { showAsk } from "./ask.js";
import { showRun } from "./run.js";
import { showTry } from "./try.js";

const POLL_MS = 2000;
const by = (id) => document.getElementById(id);
const tabs = ["try", "run"];

function select(name, focus = false) {
  for (const one of tabs) {
    const tab = by(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    by(`panel-${one}`).hidden = one !== name;
  }
  if (focus) by(`tab-${name}`).focus();
  history.replaceState(null, "", `#${name}`);
}

for (const name of tabs) {
  const tab = by(`tab-${name}`);
  tab.addEventListener("click", () => select(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) select(tabs[(tabs.indexOf(name) + step + tabs.length) % tabs.length], true);
  });
}

onProblem((message) => {
  by("problem").textContent = message;
  by("problem").hidden = !message;
});

function stateOf(run) {
  if (!run.is_finished) return run.now ? `in progress: ${run.now.name}` : "not finished";
  return run.problem ? "being opened" : "finished";
}

async function follow() {
  try {
    const run = await get("/run");
    by("run-name").textContent = run.name;
    document.title = `${run.name}: recloop`;
    const state = `${run.method}, ${stateOf(run)}`;
    if (by("run-state").textContent !== state) by("run-state").textContent = state;
    showRun(by("panel-run"), run);
    if (!isPlaced && !run.is_finished) select("run");
    isPlaced = true;
    const panel = by("panel-try");
    if (run.is_finished && !run.problem) {
      panel.replaceChildren();
      await (run.method === "dpo4rec" ? showTry(panel, run) : showAsk(panel, run));
      return;
    }
    panel.replaceChildren(waiting(run));
  } catch (error) {
    if (error.name !== "Refused") throw error;
  }
  setTimeout(follow, POLL_MS);
}

function waiting(run) {
  const told = document.createElement("p");
  told.className = "note waiting";
  told.textContent = run.is_finished ? `The run is being opened. ${run.problem}` : "When the run is finished, it can be tried here.";
  return told;
}

// Whether the address says which view, or one was chosen for the run.
let isPlaced = tabs.some((name) => `#${name}` === location.hash);
select(isPlaced ? location.hash.slice(1) : "try");
follow();
