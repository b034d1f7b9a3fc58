// The ledger: what each owner's machines have earned, and the latest entries.
import { ask, clock, empty, h, number } from "./dom.js";

const AGAIN_MS = 3000;
let list, askedAt = 0, seen = "";

export function build(section) {
  list = h("div");
  section.append(h("h1", { id: "ledger-title" }, "Ledger"), list);
}

export function shown() { askedAt = 0; }

export async function update() {
  if (Date.now() < askedAt + AGAIN_MS) return;
  askedAt = Date.now();
  const found = await ask("ledger").catch(() => null);
  const key = JSON.stringify(found);
  if (found && key !== seen) {
    seen = key;
    render(found);
  }
}

function render({ size, accounts, entries }) {
  const rows = Object.entries(accounts).sort((a, b) => b[1] - a[1]);
  list.replaceChildren(...(size ? [
    h("div", { class: "card scroll" }, h("table", {}, h("caption", {}, `Balances after ${number(size)} entries`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Account"), h("th", { scope: "col", class: "number" }, "Credit"))),
      h("tbody", {}, ...rows.map(([name, amount]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, number(amount))))))),
    h("div", { class: "card scroll" }, h("table", { class: "cards" }, h("caption", {}, "Latest entries"),
      h("thead", {}, h("tr", {}, ...["Number", "What", "From", "To"].map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col", class: "number" }, "Amount"))),
      h("tbody", {}, ...entries.map((entry) => h("tr", {}, h("th", { scope: "row" }, number(entry.number), h("span", { class: "sub" }, clock(entry.at_ms))),
        h("td", {}, entry.kind), h("td", { "data-label": "From" }, entry.debit), h("td", { "data-label": "To" }, entry.credit),
        h("td", { class: "number", "data-label": "Amount" }, number(entry.amount))))))),
  ] : [h("div", { class: "card" }, empty("Nothing was earned yet", "Each accepted result of a machine with an owner is entered here."))]));
}
