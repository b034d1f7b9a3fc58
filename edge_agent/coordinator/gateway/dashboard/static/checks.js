// Verification: what was refused and why, who is trusted how far, and what may be worth a look.
import { ago, ask, clock, empty, h, nameOf, number, put, shortId } from "./dom.js";
import { details as agentSheet } from "./fleet.js";
import { details as jobSheet } from "./jobs.js";

const AGAIN_MS = 2000;
const REFUSED = {
  "bad-signature": "the signature is not the machine's", "unknown-key": "signed by another key", "wrong-agent": "one machine speaks for another",
  "wrong-output": "not the outputs that were asked for", "wrong-input": "not the inputs that were sent", "wrong-model": "not the model that was asked for",
  "stale-epoch": "overtaken by another attempt", "stale-session": "from before the last reconnect", "unknown-job": "the job had ended",
  "not-fresh": "the clock is too far off", "not-enrolled": "the machine is not admitted", malformed: "no message of ours", "too-large": "too long",
  "rate-limited": "too many of them",
};
let tiles, refused, incidents, standings, askedAt = 0, seen = "";

export function build(section) {
  const tile = (label) => {
    const value = h("dd");
    return { element: h("div", { class: "tile" }, h("dt", {}, label), value), value };
  };
  tiles = { accepted: tile("Results accepted"), checks: tile("Checks by second machines"), refused: tile("Messages refused"), wrong: tile("Results proven wrong") };
  [refused, incidents, standings] = [h("div"), h("div"), h("div")];
  section.append(h("h1", { id: "checks-title" }, "Checks"),
    h("p", { class: "hint" }, "Since the coordinator's start. Every result is checked by its signature, its job and its digests before it is accepted."),
    h("dl", { class: "tiles" }, ...Object.values(tiles).map(({ element }) => element)), incidents, refused, standings);
}

export function shown() { askedAt = 0; }

export async function update(state) {
  if (Date.now() < askedAt + AGAIN_MS) return;
  askedAt = Date.now();
  const found = await ask("checks").catch(() => null);
  const key = JSON.stringify(found);
  if (found && key !== seen) {
    seen = key;
    render(state, found);
  }
}

function table(caption, heads, rows, kind = "") {
  return h("div", { class: "card scroll" }, h("table", { class: kind }, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), h("tbody", {}, ...rows)));
}

// Of owners, trust is kept under `=NAME`; two names of ours stand beside them.
const ownerOf = (name) => ({ operator: "your own machines", "?": "machines that nobody vouched for" }[name] ?? `all of ${name.replace(/^=/, "")}'s`);

function render(state, found) {
  const codes = Object.entries(found.refused).sort((a, b) => b[1] - a[1]);
  put(tiles.accepted.value, number(found.accepted));
  put(tiles.checks.value, number(found.checks));
  put(tiles.refused.value, number(codes.reduce((sum, [, count]) => sum + count, 0)));
  put(tiles.wrong.value, number(found.wrong));
  tiles.wrong.element.className = found.wrong ? "tile bad" : "tile";
  const agent = (id) => (state.agents[id] ? h("button", { type: "button", class: "link", onclick: () => agentSheet(state, id) }, nameOf(state.agents[id], id)) : id ? shortId(id) : "–");
  const job = (id) => (id ? h("button", { type: "button", class: "link mono", onclick: () => jobSheet(state, id) }, id.slice(0, 12)) : "–");
  incidents.replaceChildren(found.incidents.length
    ? table("What may be worth a look", [["When"], ["What"], ["Machine"], ["Job"]], found.incidents.map((one) =>
      h("tr", {}, h("th", { scope: "row" }, clock(one.at_ms), h("span", { class: "sub" }, ago(one.at_ms))), h("td", {}, one.text), h("td", {}, agent(one.agent_id)), h("td", {}, job(one.job_id)))))
    : h("div", { class: "card" }, empty("Nothing went wrong", "Leases that run out, machines that go, and results that are proven wrong would stand here.")));
  refused.replaceChildren(codes.length
    ? table("What was refused, and why", [["Why"], ["Code"], ["Times", "number"]], codes.map(([code, count]) =>
      h("tr", {}, h("th", { scope: "row" }, REFUSED[code] ?? code), h("td", { class: "mono" }, code), h("td", { class: "number" }, number(count)))))
    : "");
  standings.replaceChildren(found.standings.length
    ? table("Who is trusted how far", [["Machine or owner"], ["Variant"], ["Results since the start", "number"], ["Unclear checks in a row", "number"], ["Proven wrong", "number"], ["Gets work"]],
      found.standings.map((row) => h("tr", {}, h("th", { scope: "row" }, row.name.startsWith("owner:") ? ownerOf(row.name.slice(6)) : agent(row.name)),
        h("td", {}, row.variant || "all"),
        ...[["Results since the start", row.count], ["Unclear checks in a row", row.unclear], ["Proven wrong", row.failures]]
          .map(([label, count]) => h("td", { class: "number", "data-label": label }, number(count))),
        h("td", { "data-label": "Gets work" }, row.resting_until_ms > Date.now() ? `from ${new Date(row.resting_until_ms).toLocaleString("en-GB")} on` : "yes"))), "cards")
    : "");
}
