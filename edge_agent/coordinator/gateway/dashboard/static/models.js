// Models: each family with its variants, who serves which, and what was predicted and measured.
import { ask, bytes, empty, h, milliseconds, nameOf } from "./dom.js";

const AGAIN_MS = 3000;
let list, filter, found = [], askedAt = 0, seen = "";

export function build(section, state) {
  list = h("div");
  filter = h("input", { type: "search", "aria-label": "Find a family", placeholder: "Find a family", oninput: () => { seen = ""; render(state); } });
  section.append(h("h1", { id: "models-title" }, "Models"), h("div", { class: "bar" }, filter), list);
}

export function shown() { askedAt = 0; }

export async function update(state) {
  if (Date.now() < askedAt + AGAIN_MS) return;
  askedAt = Date.now();
  found = await ask("models").catch(() => found);
  render(state);
}

function render(state) {
  const key = JSON.stringify(found);
  if (key === seen) return;
  seen = key;
  const words = filter.value.toLowerCase();
  const families = found.filter((entry) => entry.family.includes(words)).sort((a, b) => served(b) - served(a));
  list.replaceChildren(...(families.length ? families.map((entry) => family(entry, state))
    : [h("div", { class: "card" }, empty("No family fits", "The catalogue has ", String(found.length), "."))]));
}

const served = (entry) => entry.variants.reduce((sum, variant) => sum + variant.served_by.length, 0);

function range(values, form) {
  const known = values.filter((value) => value != null).sort((a, b) => a - b);
  if (!known.length) return "–";
  return known[0] === known.at(-1) ? form(known[0]) : `${form(known[0])} … ${form(known.at(-1))}`;
}

const us = (value) => milliseconds(value / 1000);

function family(entry, state) {
  const count = served(entry);
  return h("section", { class: "card scroll", "aria-label": entry.family },
    h("table", {}, h("caption", {}, `${entry.family} `, h("span", { class: count ? "pill good" : "pill" }, count ? `served by ${count}` : "served by nobody")),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Variant"), h("th", { scope: "col" }, "Served by"), h("th", { scope: "col", class: "number" }, "Size"),
        ...["Time predicted", "measured", "Memory predicted", "measured"].map((text) => h("th", { scope: "col", class: "number" }, text)))),
      h("tbody", {}, ...entry.variants.map((variant) => h("tr", {}, h("th", { scope: "row" }, variant.variant),
        h("td", {}, h("span", { class: "chips" }, ...variant.served_by.slice(0, 8).map((id) => h("span", { class: "chip" }, nameOf(state.agents[id], id))),
          variant.served_by.length > 8 ? h("span", { class: "chip cold" }, `and ${variant.served_by.length - 8} more`) : null, variant.served_by.length ? null : "–")),
        h("td", { class: "number" }, bytes(variant.size_bytes)),
        h("td", { class: "number" }, range(variant.fits.map((fit) => fit.predicted_us), us)),
        h("td", { class: "number" }, range(variant.fits.map((fit) => fit.measured_us), us)),
        h("td", { class: "number" }, range(variant.fits.map((fit) => fit.predicted_bytes), bytes)),
        h("td", { class: "number" }, range(variant.fits.map((fit) => fit.measured_bytes), bytes)))))));
}
