// The fleet: each machine with what it is, what it serves, how it fares, and why it rests.
import { ago, ask, bytes, empty, h, keyed, meter, milliseconds, nameOf, number, pill, put } from "./dom.js";
import { openSheet } from "./sheet.js";
import { actionsFor, enrol } from "./actions.js";

const WHY = {
  paused: "its owner paused it", drained: "its owner lets it finish what it has", hours: "outside its owner's hours",
  "in-use": "somebody uses it", busy: "other programs need it", "memory-short": "its memory is short", hot: "it is too hot",
  battery: "its battery is spared", gate: "a condition of its owner's is not met", measuring: "it measures its models",
  "nothing-fits": "no model fits", "no-coordinator": "it has not heard the coordinator", energy: "its energy budget is used up",
  price: "power is expensive now", "data-cap": "its data cap is used up",
};

// How far its results are believed: whose it is to us, and the share of its next ones that a machine of another owner checks.
export function trustOf({ trust, wrong_results: wrong }) {
  if (!trust) return ["", "–", ""];
  const proven = wrong ? `${number(wrong)} proven wrong` : "";
  if (trust.kind === "own") return ["good", "yours", proven];
  if (trust.kind === "trusted") return ["good", "trusted", proven];
  if (trust.check_share == null) return ["", "–", proven];
  const share = trust.check_share >= 1 ? "every result is checked" : `1 in ${number(1 / trust.check_share)} checked`;
  return [trust.check_share >= 1 ? "warn" : "good", trust.check_share >= 1 ? "newcomer" : "known", [share, proven].filter(Boolean).join(", ")];
}

export function stateOf(agent) {
  if (agent.revoked) return ["bad", "revoked", "", 6];
  if (!agent.approved && !agent.anyone) return ["warn", "waits for approval", "", 0];
  if (agent.presence === "stopped") return ["", "stopped", `last seen ${ago(agent.seen_ms)}`, 4];
  if (agent.presence === "gone") return ["bad", "gone", agent.seen_ms == null ? "was never here" : `last seen ${ago(agent.seen_ms)}`, 5];
  if (agent.skewed) return ["bad", "clock is wrong", "gets no jobs until it is set", 1];
  const why = (agent.reasons ?? []).map(([code, text]) => text || WHY[code] || code).join("; ");
  if (agent.resting_until_ms > Date.now())
    return ["bad", "distrusted", `a result of it was proven wrong: gets nothing before ${new Date(agent.resting_until_ms).toLocaleString("en-GB")}`, 1];
  if (agent.trust?.resting_until_ms > Date.now())
    return ["warn", "cannot be checked", `gets nothing of a variant before ${new Date(agent.trust.resting_until_ms).toLocaleString("en-GB")}`, 1];
  if (agent.drained) return ["warn", "drained", "finishes what it has, gets nothing new", 3];
  if (agent.mode === "rest") return ["", "rests", why, 3];
  if (agent.in_flight) return ["busy", "works", "", 2];
  if (agent.offers?.length) return ["good", "ready", "", 2];
  return ["warn", "serves nothing", why, 2];
}

let tiles, body, table, none, search, filter;

export function build(section, state) {
  const tile = (label) => {
    const value = h("dd");
    return { element: h("div", { class: "tile" }, h("dt", {}, label), value), value };
  };
  tiles = { online: tile("Online"), serving: tile("Ready or working"), resting: tile("Resting"), waiting: tile("Wait for approval"), rate: tile("Jobs a second") };
  search = h("input", { type: "search", "aria-label": "Find a machine", placeholder: "Find by name, owner, board, model", oninput: () => update(state) });
  filter = h("select", { "aria-label": "Show which machines", onchange: () => update(state) },
    ...[["all", "All machines"], ["online", "Online"], ["rest", "Resting"], ["waiting", "Waiting for approval"], ["away", "Away"]]
      .map(([value, text]) => h("option", { value }, text)));
  body = h("tbody");
  table = h("div", { class: "card table-card scroll" }, h("table", { class: "cards" },
    h("caption", { class: "unseen" }, "Machines"),
    h("thead", {}, h("tr", {}, ...["Machine", "State", "Serves"].map((text) => h("th", { scope: "col" }, text)),
      ...["At work", "CPU", "Heat"].map((text) => h("th", { scope: "col", class: "number" }, text)), ...["Owner", "Trust"].map((text) => h("th", { scope: "col" }, text)))), body));
  none = h("div", { class: "card" });
  section.append(
    h("div", { class: "bar" }, h("h1", { id: "fleet-title" }, "Fleet"), h("span", { class: "spacer" }),
      h("button", { type: "button", onclick: () => enrol() }, "Add a machine")),
    h("dl", { class: "tiles" }, ...Object.values(tiles).map(({ element }) => element)),
    h("div", { class: "bar" }, search, filter), table, none);
  section.state = state;
}

function fits(agent, words, which) {
  const [, label, , order] = stateOf(agent);
  if (which === "online" && agent.presence !== "online") return false;
  if (which === "rest" && label !== "rests" && label !== "drained") return false;
  if (which === "waiting" && order !== 0) return false;
  if (which === "away" && agent.presence === "online") return false;
  const text = [agent.id, agent.owner, agent.board, label, ...(agent.labels ?? []), ...(agent.operator_labels ?? []), ...(agent.offers ?? []).map((o) => o.family)].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

export function update(state) {
  const all = Object.values(state.agents);
  const count = (test) => all.filter(test).length;
  put(tiles.online.value, count((a) => a.presence === "online"));
  put(tiles.serving.value, count((a) => ["ready", "works"].includes(stateOf(a)[1])));
  put(tiles.resting.value, count((a) => ["rests", "drained"].includes(stateOf(a)[1])));
  const waiting = count((a) => stateOf(a)[3] === 0);
  put(tiles.waiting.value, waiting);
  tiles.waiting.element.className = waiting ? "tile warn" : "tile";
  put(tiles.rate.value, number(state.overview.per_second?.at(-1) ?? 0, 1));
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = all.filter((agent) => fits(agent, words, filter.value))
    .sort((a, b) => stateOf(a)[3] - stateOf(b)[3] || nameOf(a).localeCompare(nameOf(b)) || a.id.localeCompare(b.id));
  keyed(body, shown, (agent) => agent.id, (agent) => row(agent, state));
  table.hidden = !shown.length;
  none.hidden = Boolean(shown.length);
  if (!shown.length) {
    none.replaceChildren(all.length
      ? empty("No machine fits", "Try fewer words, or show all machines.")
      : empty("No machine is here yet", "Press “Add a machine”, or start an agent: ", h("code", {}, "edge-agent run --help")));
  }
}

function row(agent, state) {
  const name = h("button", { type: "button", class: "link", "data-id": agent.id, onclick: () => details(state, agent.id) });
  const board = h("span", { class: "sub" });
  const label = h("span");
  const why = h("span", { class: "sub" });
  const offers = h("span", { class: "chips" });
  const cpu = meter(null);
  const trust = h("span"), checked = h("span", { class: "sub" });
  const cells = {
    work: h("td", { class: "number", "data-label": "At work" }), heat: h("td", { class: "number", "data-label": "Heat" }),
    owner: h("td", { "data-label": "Owner" }), trust: h("td", { "data-label": "Trust" }), serves: h("td", { "data-label": "Serves" }, offers),
    cpu: h("td", { class: "number", "data-label": "CPU" }, cpu.element),
  };
  const element = h("tr", {}, h("th", { scope: "row" }, name, board), h("td", {}, label, why), cells.serves, cells.work, cells.cpu, cells.heat, cells.owner, cells.trust);
  cells.trust.append(h("div", {}, trust, checked));
  let seen = "";
  const updateRow = (now) => {
    const key = JSON.stringify(now);
    if (key === seen && now.presence === "online") return;
    seen = key;
    put(name, nameOf(now));
    put(board, now.board ?? (now.isa ? `${now.isa}, ${now.cpus} CPUs` : now.software || ""));
    const [kind, text, because] = stateOf(now);
    pill(label, kind, text);
    put(why, because);
    keyed(offers, now.offers ?? [], (o) => `${o.family}/${o.variant}/${o.loaded}`, (o) => {
      const chip = h("span", { class: o.loaded ? "chip" : "chip cold", title: o.loaded ? "loaded" : "loads with the first job" }, o.family, " · ", o.variant);
      return { element: chip, update() {} };
    });
    cells.serves.classList.toggle("blank", !now.offers?.length);
    put(cells.work, now.in_flight || "–");
    cpu.update(now.cpu ?? null);
    put(cells.heat, now.celsius == null ? "–" : `${now.celsius} °C`);
    cells.heat.classList.toggle("hot", now.celsius >= 80);
    put(cells.owner, now.owner ?? "–");
    cells.owner.classList.toggle("blank", !now.owner);
    const [how, word, more] = trustOf(now);
    pill(trust, how, word);
    put(checked, more);
    cells.trust.classList.toggle("blank", word === "–");
  };
  updateRow(agent);
  return { element, update: updateRow };
}

export async function details(state, id) {
  const agent = state.agents[id];
  if (!agent) return;
  const fact = (term, value) => (value == null || value === "" ? [] : [h("dt", {}, term), h("dd", {}, value)]);
  const [kind, label, because] = stateOf(agent);
  const badge = h("span");
  pill(badge, kind, label);
  const trusted = h("span");
  const [how, word, more] = trustOf(agent);
  pill(trusted, how, word);
  const fitsTable = h("div");
  const content = h("div", {},
    h("dl", { class: "facts" },
      ...fact("State", h("span", {}, badge, because ? ` ${because}` : "")),
      ...fact("Board", agent.board), ...fact("Processor", agent.isa ? `${agent.isa}, ${agent.cpus} CPUs, ${number(agent.memory_mib / 1024, 1)} GiB memory` : null),
      ...fact("Owner", agent.owner), ...fact("Labels", [...(agent.operator_labels ?? []), ...(agent.labels ?? [])].join(", ")),
      ...fact("Trust", agent.trust ? h("span", {}, trusted, more ? ` ${more}` : "") : null), ...fact("Results proven wrong", agent.wrong_results || null),
      ...fact("Software", agent.software), ...fact("Session since", agent.born_ms ? `${ago(agent.born_ms)}` : null)),
    fitsTable, actionsFor(agent, () => details(state, id)));
  openSheet(nameOf(agent), agent.id, content);
  const found = await ask(`agents/${id}/fits`).catch(() => []);
  if (!found.length) return;
  fitsTable.append(h("h3", {}, "Models on this machine"), h("div", { class: "scroll" }, h("table", {},
    h("caption", { class: "unseen" }, "Each variant: predicted and measured"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Variant"), ...["Predicted", "Measured", "Memory predicted", "measured"].map((t) => h("th", { scope: "col", class: "number" }, t)))),
    h("tbody", {}, ...found.map((fit) => h("tr", {},
      h("th", { scope: "row" }, `${fit.family} · ${fit.variant} `, fit.served ? h("span", { class: "pill good" }, "served") : null, h("span", { class: "sub" }, fit.why)),
      ...[fit.predicted_us, fit.measured_us].map((us) => h("td", { class: "number" }, us == null ? "–" : milliseconds(us / 1000))),
      ...[fit.predicted_bytes, fit.measured_bytes].map((count) => h("td", { class: "number" }, bytes(count)))))))));
}
