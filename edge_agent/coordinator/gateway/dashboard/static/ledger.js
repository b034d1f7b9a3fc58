// The ledger: what each owner's machines have earned, and the latest entries.
import { ask, clock, empty, h, nameOf, number } from "./dom.js";

const AGAIN_MS = 3000;
let list, askedAt = 0, seen = "";

export function build(section) {
  list = h("div");
  section.append(h("h1", { id: "ledger-title" }, "Ledger"), list);
}

export function shown() { askedAt = 0; }

export async function update(state) {
  if (Date.now() < askedAt + AGAIN_MS) return;
  askedAt = Date.now();
  const found = await ask("ledger").catch(() => null);
  const key = JSON.stringify(found);
  if (found && key !== seen) {
    seen = key;
    render(found, state);
  }
}

// `owner:NAME`, `escrow:NAME/AGENT/VARIANT`, `work` (what all credit comes from) and `forfeit`: docs/verification.md.
function parts(account) {
  if (account.startsWith("owner:")) return { kind: "owner", owner: account.slice(6) };
  const held = /^escrow:(.*)\/([^/]*)\/([^/]*)$/s.exec(account);
  return held ? { kind: "held", owner: held[1], agent: held[2] } : { kind: account };
}

const named = (owner) => (owner === "operator" ? "your own machines" : owner === "?" ? "machines that nobody vouched for" : owner);

function side(account, state) {
  const { kind, owner, agent } = parts(account);
  if (kind === "owner") return named(owner);
  if (kind === "held") return h("div", { title: account }, `${named(owner)}, held`, h("span", { class: "sub" }, nameOf(state.agents[agent], agent)));
  return { work: "work done", forfeit: "forfeited" }[kind] ?? account;
}

function balances(accounts) {
  const owners = new Map();
  for (const [account, amount] of Object.entries(accounts)) {
    const { kind, owner } = parts(account);
    if (owner === undefined) continue;
    const sums = owners.get(owner) ?? { owner: 0, held: 0 };
    sums[kind] += amount;
    owners.set(owner, sums);
  }
  return [...owners].sort((a, b) => b[1].owner - a[1].owner || a[0].localeCompare(b[0]));
}

function render({ size, accounts, entries }, state) {
  list.replaceChildren(...(size ? [
    h("p", { class: "hint" }, `Held is what waits for a check. Forfeited so far, because a result was proven wrong: ${number(accounts.forfeit ?? 0)}.`),
    h("div", { class: "card scroll" }, h("table", {}, h("caption", {}, `Balances after ${number(size)} entries`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Owner"), ...["Credit", "Held"].map((text) => h("th", { scope: "col", class: "number" }, text)))),
      h("tbody", {}, ...balances(accounts).map(([owner, sums]) => h("tr", {}, h("th", { scope: "row" }, named(owner)),
        ...[sums.owner, sums.held].map((amount) => h("td", { class: "number" }, number(amount)))))))),
    h("div", { class: "card scroll" }, h("table", { class: "cards" }, h("caption", {}, "Latest entries"),
      h("thead", {}, h("tr", {}, ...["Number", "What", "From", "To"].map((text) => h("th", { scope: "col" }, text)), h("th", { scope: "col", class: "number" }, "Amount"))),
      h("tbody", {}, ...entries.map((entry) => h("tr", {}, h("th", { scope: "row" }, number(entry.number), h("span", { class: "sub" }, clock(entry.at_ms))),
        h("td", {}, entry.kind), h("td", { "data-label": "From" }, side(entry.debit, state)), h("td", { "data-label": "To" }, side(entry.credit, state)),
        h("td", { class: "number", "data-label": "Amount" }, number(entry.amount))))))),
  ] : [h("div", { class: "card" }, empty("Nothing was earned yet", "Each accepted result is entered here, for the owner of the machine."))]));
}
