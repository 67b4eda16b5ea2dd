// The run as it goes: steps, curves, completions with rewards, tables.
import { interval, lineChart, span } from "./charts.js";
import { el, fixed, signed } from "./api.js";

let before = "";
const MAX_LINES = 6;

export function showRun(panel, run) {
  const { now, ...rest } = run;
  const same = JSON.stringify({ ...rest, now: now?.name });
  const quiet = panel.querySelector("#idle");
  if (quiet && now) quiet.textContent = idle(now);
  if (same === before) return;
  before = same;
  const place = window.scrollY;
  panel.replaceChildren(
    steps(run),
    run.table ? table(run.table) : el("p", { class: "note" }, "The table comes with the last steps."),
    run.charts.length ? el("section", {}, el("h2", {}, "Curves"), el("div", { class: "figures" }, ...run.charts.map(chart))) : "",
    run.completions.length ? completions(run.completions) : "",
  );
  window.scrollTo(0, place);
}

const idle = (now) => (now.idle_s < 90 ? `last file written ${now.idle_s} s ago` : `nothing written for ${duration(now.idle_s)}: is it still going?`);
const duration = (s) => (s < 60 ? `${s < 10 ? s.toFixed(1) : Math.round(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s` : `${(s / 3600).toFixed(1)} h`);

// Some curves of a chart, for with all variants of a run there may be dozens: the method's, then the latest.
const FIRST = ["untuned", "trained", "reward_model", "random_label_dpo", "sft_best_of_n", "no_text"];
const weight = (name) => FIRST.findIndex((variant) => name.split(".").includes(variant)) + 1 || FIRST.length + 1;
const chart = (one) =>
  lineChart({ ...one, lines: [...one.lines].reverse().sort((a, b) => weight(a.name) - weight(b.name)).slice(0, MAX_LINES) });

function steps(run) {
  const verbs = new Map();
  for (const step of run.steps) {
    const verb = step.name.split(".")[0];
    const group = verbs.get(verb) ?? { num: 0, wall_s: 0, tokens: 0 };
    verbs.set(verb, { num: group.num + 1, wall_s: group.wall_s + step.wall_s, tokens: group.tokens + step.tokens });
  }
  const total_s = run.steps.reduce((sum, step) => sum + step.wall_s, 0);
  const most_s = Math.max(1e-9, ...[...verbs.values()].map((group) => group.wall_s));
  const rows = [...verbs].map(([verb, group]) => {
    const meter = el("span", { class: "fill" });
    meter.style.width = `${(100 * group.wall_s) / most_s}%`;
    const tokens = group.tokens ? `${group.tokens.toLocaleString("en")} tokens` : "";
    return el("tr", {}, el("th", { scope: "row" }, verb), el("td", { class: "n" }, String(group.num)), el("td", { class: "n" }, duration(group.wall_s)), el("td", { class: "meter-cell" }, el("span", { class: "meter" }, meter)), el("td", { class: "n soft" }, tokens));
  });
  const now = run.now && el("p", { class: "now" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("b", {}, run.now.name), " ", el("span", { id: "idle", class: "soft" }, idle(run.now)));
  const head = el("tr", {}, ...["Step", "Done", "Time", "", "Written"].map((name, place) => el(name ? "th" : "td", place === 0 || place === 3 ? { scope: name ? "col" : null } : { scope: "col", class: "n" }, name)));
  return el(
    "section",
    {},
    el("h2", {}, run.is_finished ? `Finished: ${run.steps.length} steps in ${duration(total_s)}` : `${run.steps.length} steps done in ${duration(total_s)}`),
    now,
    rows.length ? el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", { class: "steps" }, el("thead", {}, head), el("tbody", {}, ...rows))) : "",
  );
}

export function estimates(told, names) {
  const rows = names ? told.rows.filter((row) => names.includes(row.name)) : told.rows;
  const ends = span(rows);
  return el(
    "table",
    { class: "estimates" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Variant"), el("th", { scope: "col", class: "n" }, told.metric), el("th", { scope: "col", class: "plot" }, "95% interval"))),
    el("tbody", {}, ...rows.map((row) => el("tr", { class: row.name === "trained" ? "method" : "" }, el("th", { scope: "row" }, row.label), el("td", { class: "n value" }, fixed(row.value, 3)), el("td", { class: "plot" }, el("div", {}, interval(row, ends), el("span", { class: "range" }, `${fixed(row.low, 3)} to ${fixed(row.high, 3)}`)))))),
  );
}

function table(told) {
  const verdicts = told.contrasts.map((one) =>
    el("li", { class: one.verdict.replaceAll(" ", "-") }, el("b", {}, one.name), " against ", one.against, ": ", el("span", { class: "n" }, `${signed(one.value, 3)} (${signed(one.low, 3)} to ${signed(one.high, 3)})`), " ", el("span", { class: "verdict" }, one.verdict)),
  );
  return el(
    "section",
    {},
    el("h2", {}, told.title, " ", told.is_demonstration ? el("span", { class: "badge" }, "demonstration: one seed") : ""),
    el("p", { class: "note" }, `${told.metric} over ${told.num_users.toLocaleString("en")} test ${told.unit}s`),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, estimates(told)),
    verdicts.length ? el("details", {}, el("summary", {}, `${verdicts.length} tested differences`), el("ul", { class: "claims" }, ...verdicts)) : "",
  );
}

function completions(users) {
  const rewards = users.flatMap((user) => user.texts.map((one) => one.reward)).filter((reward) => reward != null);
  const [low, high] = [Math.min(...rewards), Math.max(...rewards)];
  const card = (user) =>
    el(
      "details",
      { class: "written", open: user === users[0] },
      el("summary", {}, user.user_id || "somebody", el("span", { class: "soft" }, ` ${user.texts.length} ${user.texts.length === 1 ? "text" : "texts"}`)),
      el(
        "ol",
        {},
        ...user.texts.map((one) => {
          const fill = el("span", { class: "fill" });
          if (one.reward != null) fill.style.width = `${high > low ? (100 * (one.reward - low)) / (high - low) : 100}%`;
          const reward = one.reward == null ? "" : el("span", { class: "reward" }, el("span", { class: "n" }, fixed(one.reward, 3)), el("span", { class: "meter", "aria-hidden": "true" }, fill));
          const variant = el("span", { class: "soft variant" }, one.variant.replaceAll("_", " "));
          return el("li", { class: reward ? "" : "bare" }, reward || variant, el("p", {}, one.text || "(no text)"));
        }),
      ),
    );
  return el("section", {}, el("h2", {}, rewards.length ? "What was written, and its rewards" : "What was written"), ...users.map(card));
}
