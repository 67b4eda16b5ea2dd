// Try a run of DPO4Rec: whose history, which text, and how the ranking follows it.
import { debounced, el, fixed, get, latest, post, signed } from "./api.js";
import { itemEditor, userFinder } from "./lists.js";
import { estimates } from "./run.js";

const WAIT_MS = 250, SHOWN_ITEMS = 2;
const VARIANTS = { trained: "After training", untuned: "Before training" };
const SHOWN_VARIANTS = ["trained", "untuned", "random_label_dpo", "shuffled", "no_text"];

export async function showTry(panel, run) {
  // who: "user" or "history"; texts: what is in the field, by variant; written: what the models wrote.
  const state = { who: "user", user: null, history: [], ratings: [], candidates: [], labels: new Map(), variant: "trained", texts: {}, written: {}, part: null, start: null };
  const variants = Object.keys(VARIANTS).filter((name) => !run.table || run.table.rows.some((row) => row.name === name));
  if (!variants.includes("trained")) state.variant = "untuned";

  const whoBox = el("div");
  const field = el("textarea", { id: "text", rows: 4, maxlength: 8000, "aria-describedby": "text-note" });
  const note = el("p", { id: "text-note", class: "note" });
  const reset = el("button", { type: "button", class: "plain", hidden: true }, "Undo my changes");
  const parts = el("ul", { class: "parts" });
  const ranking = el("ol", { class: "ranking" });
  const said = el("p", { class: "sr", role: "status" });
  const candidateBox = el("div");

  const pick = pills("Text written", variants.map((name) => [name, VARIANTS[name]]), state.variant, (name) => {
    state.variant = name;
    load();
  });

  panel.append(
    run.table ? numbers(run.table) : "",
    el(
      "div",
      { class: "workbench" },
      el("section", { class: "card who" }, el("h2", {}, "Who"), whoBox),
      el("section", { class: "card said" }, el("h2", {}, el("label", { for: "text" }, "Text about the user")), variants.length > 1 ? pick : "", field, el("div", { class: "under" }, note, reset)),
      el("section", { class: "card apart" }, el("h2", {}, "What each part changes"), parts),
      el("section", { class: "card result" }, el("h2", {}, "Ranking"), said, ranking, el("p", { class: "note key" }), el("details", {}, el("summary", {}, "Change the candidates"), candidateBox)),
    ),
  );
  const key = panel.querySelector(".key");

  const asker = () => (state.who === "user" ? { user: state.user } : { history: state.history.map(({ item_id, rating }) => ({ item_id, rating })) });
  const candidateIds = () => state.candidates.map((item) => item.item_id);
  const canRank = () => state.candidates.length >= 2 && (state.who === "user" ? state.user : state.history.length);

  const rank = latest(async (signal) => {
    if (!canRank()) return ranking.replaceChildren();
    if (state.who === "user" && !ranking.children.length && field.value === state.written[variants[0]]) {
      // The run's own text is ranked at once, while what its parts change may have to wait for the text encoder.
      const quick = await post("/rerank", { ...asker(), candidates: candidateIds() }, signal);
      draw({ parts: [], ranking: quick.ranking });
      parts.replaceChildren(el("li", { class: "note" }, "Being computed\u2026"));
    }
    const reply = await post("/explain", { ...asker(), candidates: candidateIds(), text: field.value }, signal);
    state.start ??= reply.ranking.map((item) => item.item_id);
    if (state.part !== null && state.part >= reply.parts.length) state.part = null;
    draw(reply);
  });
  const rankSoon = debounced(rank, WAIT_MS);

  // The text of the variant: what was typed over it, what the run has, or what the model writes now.
  const load = latest(async (signal) => {
    const { variant, texts, written } = state;
    state.part = null;
    if (written[variant] === undefined && canRank()) {
      field.value = texts[variant] ?? "";
      field.setAttribute("aria-busy", "true");
      note.textContent = "The language model writes\u2026";
      try {
        written[variant] = (await post("/profile", { ...asker(), variant }, signal)).text;
      } catch (error) {
        if (error.name !== "Refused" || error.retry_s) throw error;
      }
    }
    field.value = texts[variant] ?? written[variant] ?? "";
    field.removeAttribute("aria-busy");
    edited();
    await rank();
  });

  function edited() {
    const written = state.written[state.variant];
    reset.hidden = written === undefined || field.value === written;
    const model = state.variant === "trained" ? "the trained language model" : "the language model before training";
    if (written === undefined) note.textContent = "No language model has written about this history. A text of yours is ranked too.";
    else if (!written && !field.value) note.textContent = "The language model wrote nothing that can be used here. A text of yours is ranked too.";
    else note.textContent = field.value === written ? `As ${model} wrote it. Edit it, and the ranking follows.` : "Edited.";
  }

  field.addEventListener("input", () => {
    state.texts[state.variant] = field.value;
    edited();
    rankSoon();
  });
  reset.addEventListener("click", () => {
    delete state.texts[state.variant];
    field.focus();
    load();
  });

  function draw(reply) {
    parts.replaceChildren(...reply.parts.map((part, number) => partRow(part, number, reply)));
    if (!reply.parts.length) parts.replaceChildren(el("li", { class: "note" }, "There is no text."));
    const old = new Map([...ranking.children].map((row) => [row.dataset.item, row.getBoundingClientRect().top]));
    const scores = reply.ranking.map((item) => item.score);
    const [least, most] = [Math.min(...scores), Math.max(...scores)];
    const changes = reply.ranking.map((item) => (state.part === null ? 0 : item.changes[state.part]));
    const widest = Math.max(1e-9, ...changes.map(Math.abs));
    ranking.replaceChildren(...reply.ranking.map((item, place) => itemRow(item, place, (item.score - least) / (most - least || 1), widest)));
    for (const row of ranking.children) slide(row, old.get(row.dataset.item));
    const chosen = state.labels.size ? " \u25cf was chosen by the user afterwards." : "";
    key.textContent = (state.part === null ? "Bars are scores. Arrows compare with the text as it was written first." : "Bars are what the marked part adds to each score.") + chosen;
    said.textContent = `First: ${reply.ranking.slice(0, 3).map((item) => item.title).join(", ")}`;
  }

  function partRow(part, number, reply) {
    const byChange = [...reply.ranking].sort((a, b) => b.changes[number] - a.changes[number]);
    const lifted = byChange.slice(0, SHOWN_ITEMS).filter((item) => item.changes[number] > 0);
    const lowered = byChange.slice(-SHOWN_ITEMS).reverse().filter((item) => item.changes[number] < 0);
    const told = (items, kind) => items.map((item) => el("span", { class: kind }, `${item.title} `, el("b", {}, signed(item.changes[number]))));
    const press = () => {
      state.part = state.part === number ? null : number;
      draw(reply);
      parts.querySelectorAll("button")[number].focus();
    };
    return el("li", {}, el("button", { type: "button", "aria-pressed": String(state.part === number), onclick: press }, el("span", { class: "part" }, part), el("span", { class: "moves" }, ...told(lifted, "up"), ...told(lowered, "down"))));
  }

  function itemRow(item, place, share, widest) {
    const moved = state.start ? state.start.indexOf(item.item_id) - place : 0;
    const isNew = state.start && !state.start.includes(item.item_id);
    const change = state.part === null ? null : item.changes[state.part];
    const fill = el("span", { class: change === null ? "fill" : change < 0 ? "fill down" : "fill up" });
    if (change === null) fill.style.width = `${2 + 98 * share}%`;
    else {
      fill.style.width = `${(50 * Math.abs(change)) / widest}%`;
      fill.style.left = change < 0 ? `${50 - (50 * Math.abs(change)) / widest}%` : "50%";
    }
    const arrow = isNew || !moved ? "" : moved > 0 ? `\u25b2${moved}` : `\u25bc${-moved}`;
    const spoken = moved > 0 ? `up ${moved}` : `down ${-moved}`;
    return el(
      "li",
      { "data-item": item.item_id },
      el("span", { class: "place" }, String(place + 1)),
      el("span", { class: "title" }, item.title, state.labels.get(item.item_id) > 0 ? el("span", { class: "chosen", title: "chosen by the user afterwards" }, " \u25cf", el("span", { class: "sr" }, " chosen afterwards")) : ""),
      el("span", { class: moved > 0 ? "move up" : "move down" }, ...(arrow ? [el("span", { "aria-hidden": "true" }, arrow), el("span", { class: "sr" }, spoken)] : [])),
      el("span", { class: change === null ? "meter" : "meter middle", "aria-hidden": "true" }, fill),
      el("span", { class: "score" }, change === null ? fixed(item.score) : signed(change)),
    );
  }

  function drawCandidates() {
    candidateBox.replaceChildren(
      itemEditor({
        items: state.candidates,
        title: "Add a candidate",
        onChange: () => {
          state.start = null;
          rankSoon();
        },
      }),
    );
  }

  const openUser = latest(async (signal, userId) => {
    const user = await get(`/users/${encodeURIComponent(userId)}`, signal);
    Object.assign(state, { who: "user", user: user.user_id, history: user.history, ratings: user.ratings, texts: {}, written: { ...user.texts }, start: null, part: null });
    if (user.candidates.length) {
      state.candidates = user.candidates;
      state.labels = new Map(user.candidates.map((item) => [item.item_id, item.label]));
    }
    drawWho();
    drawCandidates();
    await load();
  });

  function drawWho() {
    const ways = pills("Whose history", [["user", "A user of the log"], ["history", "A history of your own"]], state.who, (way) => {
      state.who = way;
      if (way === "user") return openUser(state.user ?? "");
      Object.assign(state, { history: state.history.map((item) => ({ ...item })), labels: new Map(), texts: {}, written: {}, start: null });
      drawWho();
      load();
      whoBox.querySelector("input:checked").focus();
    });
    const changed = debounced(() => {
      Object.assign(state, { texts: {}, written: {}, start: null });
      load();
    }, WAIT_MS);
    const finder = userFinder("User", (user) => openUser(user.user_id));
    finder.querySelector("input").value = state.user ?? "";
    const shown = el("ul", { class: "chips", tabindex: "0", role: "list", "aria-label": "History" }, ...state.history.map((item) => el("li", {}, el("span", { class: "title" }, item.title), item.rating == null ? "" : el("span", { class: "rating" }, `${item.rating}\u2605`))));
    const inside = state.who === "user" ? [finder, shown] : [itemEditor({ items: state.history, title: "Add what was liked, or not", ratings: state.ratings, onChange: changed })];
    whoBox.replaceChildren(ways, ...inside);
  }

  const [first] = await get("/users?limit=1");
  if (first) await openUser(first.user_id);
}

function numbers(told) {
  const names = SHOWN_VARIANTS.filter((name) => told.rows.some((row) => row.name === name));
  return el(
    "details",
    { class: "numbers" },
    el("summary", {}, ...summary(told)),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, estimates(told, names)),
    el("p", { class: "note" }, `${told.title}, over ${told.num_users.toLocaleString("en")} test ${told.unit}s. All variants are under \u201cThe run\u201d.`),
  );
}

function summary(told) {
  const shown = ["trained", "untuned", "no_text"].map((name) => told.rows.find((row) => row.name === name)).filter(Boolean);
  const figures = shown.map((row) => el("span", { class: "figure" }, el("b", {}, fixed(row.value, 3)), " ", row.label));
  return [el("span", { class: "metric" }, told.metric), ...figures, told.is_demonstration ? el("span", { class: "badge" }, "demonstration: one seed") : ""];
}

function pills(label, choices, chosen, onChoose) {
  const name = `pills-${label.replaceAll(" ", "-")}`;
  return el(
    "fieldset",
    { class: "pills" },
    el("legend", { class: "sr" }, label),
    ...choices.map(([value, told]) => el("label", {}, el("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onChoose(value) }), el("span", {}, told))),
  );
}

// Let a row glide from where its item was.
function slide(row, top) {
  if (top === undefined || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const by = top - row.getBoundingClientRect().top;
  if (by) row.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 280, easing: "ease-out" });
}
