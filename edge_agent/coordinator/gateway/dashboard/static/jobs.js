// Jobs: how many, how fast, which; and one job's whole way.
import { ask, clock, empty, h, keyed, milliseconds, nameOf, number, pill, put, svg } from "./dom.js";
import { throughput } from "./chart.js";
import { confirmSheet, openSheet } from "./sheet.js";

const KINDS = { succeeded: "good", failed: "bad", cancelled: "", queued: "warn", leased: "busy", hedged: "busy", held: "busy" };
const TEXTS = { leased: "running", hedged: "running twice", queued: "waiting", held: "being checked" };

let tiles, chart, latest, failed, cards, none;

export function build(section, state) {
  const tile = (label) => {
    const value = h("dd");
    return { element: h("div", { class: "tile" }, h("dt", {}, label), value), value };
  };
  tiles = { rate: tile("Jobs a second"), waiting: tile("Waiting"), running: tile("Running"), p50: tile("Half done within"), p95: tile("95 % within"), p99: tile("99 % within"), failed: tile("Failed, 5 min") };
  chart = throughput();
  [latest, failed] = [list("Latest jobs", state), list("Latest that failed", state)];
  none = h("div", { class: "card" }, empty("No job has come yet", "Send one: ", h("code", {}, "edge-agent submit digits --input examples/scan.json")));
  cards = h("div", {}, chart.element, latest.element, failed.element);
  section.append(h("h1", { id: "jobs-title" }, "Jobs"),
    h("dl", { class: "tiles" }, ...Object.values(tiles).map(({ element }) => element)), cards, none);
}

function list(title, state) {
  const body = h("tbody");
  const element = h("div", { class: "card scroll" }, h("table", { class: "cards" }, h("caption", {}, title),
    h("thead", {}, h("tr", {}, ...["Job", "State", "Machine", "Client"].map((text) => h("th", { scope: "col" }, text)),
      ...["Attempts", "Took"].map((text) => h("th", { scope: "col", class: "number" }, text)))), body));
  return { element, update: (jobs) => {
    element.hidden = !jobs.length;
    keyed(body, jobs, (job) => job.id, () => row(state));
  } };
}

function row(state) {
  let shown = null;
  const link = h("button", { type: "button", class: "link mono", onclick: () => details(state, shown.id) });
  const family = h("span", { class: "sub" });
  const label = h("span");
  const cells = { machine: h("td", { "data-label": "Machine" }), client: h("td", { "data-label": "Client" }),
    attempts: h("td", { class: "number", "data-label": "Attempts" }), took: h("td", { class: "number", "data-label": "Took" }) };
  const element = h("tr", {}, h("th", { scope: "row" }, link, family), h("td", {}, label), cells.machine, cells.client, cells.attempts, cells.took);
  return { element, update: (job) => {
    shown = job;
    put(link, job.id.slice(0, 12));
    put(family, `${job.family} · ${clock(job.submitted_ms)}`);
    pill(label, KINDS[job.state] ?? "", job.error ?? TEXTS[job.state] ?? job.state);
    put(cells.machine, job.agent_id ? nameOf(state.agents[job.agent_id], job.agent_id) : "–");
    put(cells.client, job.client || "–");
    cells.client.classList.toggle("blank", !job.client);
    put(cells.attempts, job.attempts || "–");
    put(cells.took, milliseconds(job.ms));
  } };
}

export function update({ overview, jobs }) {
  const live = overview.live ?? {};
  const shares = overview.percentiles_ms ?? {};
  const ended = overview.ended ?? {};
  const bad = (ended.failed ?? 0) + (ended.cancelled ?? 0);
  put(tiles.rate.value, number(overview.per_second?.at(-1) ?? 0, 1));
  put(tiles.waiting.value, number(live.queued ?? 0));
  put(tiles.running.value, number((live.leased ?? 0) + (live.hedged ?? 0)));
  put(tiles.p50.value, milliseconds(shares["50"]));
  put(tiles.p95.value, milliseconds(shares["95"]));
  put(tiles.p99.value, milliseconds(shares["99"]));
  put(tiles.failed.value, number(bad));
  tiles.failed.element.className = bad ? "tile bad" : "tile";
  const any = Boolean(jobs.latest?.length || jobs.failed?.length);
  cards.hidden = !any;
  none.hidden = any;
  chart.update(overview);
  latest.update(jobs.latest ?? []);
  failed.update(jobs.failed ?? []);
}

export async function details(state, id) {
  let job;
  try {
    job = await ask(`jobs/${id}`);
  } catch (error) {
    openSheet("A job", id, h("p", { class: "wrong" }, error.message));
    return;
  }
  const fact = (term, value) => (value == null || value === "" ? [] : [h("dt", {}, term), h("dd", {}, value)]);
  const badge = h("span");
  pill(badge, KINDS[job.state] ?? "", TEXTS[job.state] ?? job.state);
  const whole = Math.max(1e-6, ...job.stages.map((stage) => stage.start_ms + stage.took_ms));
  const bar = (stage) => svg("svg", { viewBox: "0 0 400 14", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 400, height: 14, rx: 3 }),
    svg("rect", { class: "fill", x: (400 * stage.start_ms) / whole, width: Math.max(2, (400 * stage.took_ms) / whole), height: 14, rx: 3 }));
  const final = ["succeeded", "failed", "cancelled"].includes(job.state);
  openSheet(`A job of ${job.family}`, job.id, h("div", {},
    h("dl", { class: "facts" }, ...fact("State", badge), ...fact("What went wrong", job.error ? `${job.error.message} (${job.error.code}, ${job.error.blame})` : null),
      ...fact("Took", milliseconds(job.ms)), ...fact("Machine", job.agent_id ? nameOf(state.agents[job.agent_id], job.agent_id) : null),
      ...fact("Variant", job.variant), ...fact("Client", job.client), ...fact("Attempts", job.attempts), ...fact("Submitted", new Date(job.submitted_ms).toLocaleString("en-GB"))),
    h("h3", {}, "Its way"),
    h("ol", { class: "way" }, ...job.stages.map((stage) => h("li", { class: stage.name },
      h("span", {}, stage.text, stage.agent_id ? h("span", { class: "sub" }, nameOf(state.agents[stage.agent_id], stage.agent_id)) : null),
      bar(stage), h("span", { class: "number" }, milliseconds(stage.took_ms))))),
    job.clock_moved_ms ? h("p", { class: "hint" }, `The machine's clock was ${milliseconds(Math.abs(job.clock_moved_ms))} ${job.clock_moved_ms > 0 ? "behind" : "ahead"}; its times are moved by that.`) : null,
    h("p", { class: "hint" }, "Times are those that coordinator and machine wrote down, in whole milliseconds; the model's own time is exact to the microsecond."),
    h("div", { class: "actions" },
      job.receipt ? h("a", { class: "button", href: job.receipt, download: true }, "Receipt") : null,
      final ? null : h("button", { type: "button", class: "danger", onclick: () => confirmSheet({
        title: "Cancel this job?", text: "Its client is told that it was cancelled. What a machine still computes for it is for nothing.",
        verb: "Cancel the job", danger: true, back: () => details(state, id),
        act: async () => { await ask(`jobs/${id}`, { method: "DELETE" }); return "The job was cancelled"; } }) }, "Cancel"),
      final ? null : h("button", { type: "button", class: "quiet", onclick: () => details(state, id) }, "Look again"))));
}
