// Runs of ReRec and Re2LLM: a wish in words, or a session, and the answer.
import { el, post } from "./api.js";

const FORMS = {
  rerec: {
    path: "/ask",
    fields: [
      { name: "request", label: "What is wanted", placeholder: "a film of genre Drama", tag: "input" },
      { name: "user", label: "User whose history is shown (may be empty)", placeholder: "id", tag: "input" },
    ],
    body: ({ request, user }) => ({ request, ...(user ? { user } : {}) }),
    answer: (reply) => [
      el("p", { class: "pick" }, reply.pick ?? `No pick: ${reply.status}`),
      el("p", {}, reply.answer),
      shares(reply.shares),
    ],
  },
  re2llm: {
    path: "/hint",
    fields: [
      { name: "session", label: "Titles of the session, one a line, oldest first", placeholder: "", tag: "textarea" },
      { name: "candidates", label: "Titles to rank, one a line (may be empty)", placeholder: "", tag: "textarea" },
    ],
    body: ({ session, candidates }) => ({ session: lines(session), ...(lines(candidates).length ? { candidates: lines(candidates) } : {}) }),
    answer: (reply) => [
      el("p", { class: "pick" }, reply.hint ? `Hint: ${reply.hint}` : "No hint"),
      reply.ranking.length ? null : el("p", { class: "note" }, "The language model named no candidate."),
      el("ol", { class: "plain" }, ...reply.ranking.map((title) => el("li", {}, title))),
    ],
  },
};
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function shares(of) {
  const rows = Object.entries(of).map(([title, share]) => {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    return el("li", {}, el("span", { class: "title" }, title), el("span", { class: "n" }, `${Math.round(100 * share)}%`), el("span", { class: "meter", "aria-hidden": "true" }, fill));
  });
  return el("div", {}, el("h3", {}, "Share of eight more answers that name it"), el("ul", { class: "shares" }, ...rows));
}

export function showAsk(panel, run) {
  const form = FORMS[run.method];
  if (!form) {
    panel.append(el("p", { class: "note" }, `A run of ${run.method} answers no questions.`));
    return;
  }
  const inputs = form.fields.map(({ name, label, placeholder, tag }) => {
    const input = el(tag, { id: `ask-${name}`, name, placeholder, rows: tag === "textarea" ? 5 : null });
    return el("div", { class: "field" }, el("label", { for: input.id }, label), input);
  });
  const answer = el("div", { class: "answer", "aria-live": "polite" });
  const button = el("button", { class: "main" }, "Ask");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    answer.replaceChildren(el("p", { class: "note" }, "The language model writes; it does one request at a time."));
    try {
      const reply = await post(form.path, form.body(Object.fromEntries(new FormData(asked))));
      answer.replaceChildren(...form.answer(reply).filter(Boolean));
    } catch (error) {
      if (error.name !== "Refused") throw error;
      answer.replaceChildren();
    } finally {
      button.disabled = false;
    }
  };
  const asked = el("form", { class: "card ask", onsubmit: submit }, ...inputs, button);
  panel.append(asked, answer);
}
