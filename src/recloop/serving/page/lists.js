// A list of items that one can add to, by the titles of the log, and take from.
import { debounced, el, get, latest } from "./api.js";

const WAIT_MS = 150;
let count = 0;

// A text field with a list of what fits; `choose` gets the record whose name was picked or typed whole.
export function finder({ label, find, name, detail, choose, placeholder }) {
  const id = `finder-${++count}`;
  const options = el("datalist", { id: `${id}-options` });
  const known = new Map();
  const input = el("input", { id, list: options.id, placeholder, autocomplete: "off", spellcheck: "false" });
  const search = latest(async (signal, words) => {
    const found = await get(find(words), signal);
    options.replaceChildren(
      ...found.map((one) => {
        const shown = known.has(name(one)) && known.get(name(one)) !== one && detail(known.get(name(one))) !== detail(one) ? `${name(one)} (${detail(one)})` : name(one);
        known.set(shown, one);
        return el("option", { value: shown, label: detail(one) });
      }),
    );
  });
  const searchSoon = debounced(search, WAIT_MS);
  const pick = () => {
    const one = known.get(input.value.trim());
    if (one) choose(one, input);
    return Boolean(one);
  };
  input.addEventListener("input", (event) => {
    // A pick from the list comes as one replacement; typing goes letter by letter.
    if (event.inputType === "insertReplacementText" || !event.inputType) pick();
    searchSoon(input.value);
  });
  input.addEventListener("keydown", async (event) => {
    if (event.key !== "Enter" || pick()) return;
    await search(input.value);
    pick();
  });
  input.addEventListener("focus", () => search(input.value), { once: true });
  return el("div", { class: "finder" }, el("label", { for: id }, label), input, options);
}

export const itemFinder = (label, choose) =>
  finder({
    label,
    find: (words) => `/items?limit=20&search=${encodeURIComponent(words)}`,
    name: (item) => item.title,
    detail: (item) => item.item_id,
    placeholder: "title",
    choose: (item, input) => {
      choose(item);
      input.value = "";
    },
  });

export const userFinder = (label, choose) =>
  finder({
    label,
    find: (words) => `/users?limit=30&search=${encodeURIComponent(words)}`,
    name: (user) => user.user_id,
    detail: (user) => `${user.group} user`,
    placeholder: "id",
    choose,
  });

// `items` is changed in place; `onChange` is told. With `ratings` each item has one of these, or none.
export function itemEditor({ items, title, ratings = [], onChange }) {
  const list = el("ul", { class: "chips", tabindex: "0", role: "list", "aria-label": "Items" });
  const draw = () =>
    list.replaceChildren(
      ...items.map((item, place) =>
        el(
          "li",
          {},
          el("span", { class: "title" }, item.title),
          ratings.length ? rating(item) : null,
          el("button", { type: "button", class: "drop", "aria-label": `Remove ${item.title}`, onclick: () => remove(place) }, "\u00d7"),
        ),
      ),
    );
  const rating = (item) => {
    const choice = el("select", { "aria-label": `Rating of ${item.title}` }, el("option", { value: "" }, "\u2013"));
    for (const value of new Set([...ratings, ...(item.rating == null ? [] : [item.rating])])) choice.append(el("option", { value }, `${value}\u2605`));
    choice.value = item.rating ?? "";
    choice.addEventListener("change", () => {
      item.rating = choice.value === "" ? null : Number(choice.value);
      onChange();
    });
    return choice;
  };
  const remove = (place) => {
    items.splice(place, 1);
    draw();
    onChange();
    (list.querySelectorAll(".drop")[Math.min(place, items.length - 1)] ?? root.querySelector("input")).focus();
  };
  const add = (item) => {
    if (items.some((one) => one.item_id === item.item_id)) return;
    items.push({ ...item });
    draw();
    onChange();
  };
  const root = el("div", { class: "editor" }, list, itemFinder(title, add));
  draw();
  return root;
}
