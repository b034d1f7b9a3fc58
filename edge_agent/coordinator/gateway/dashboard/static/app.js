// Keeps the state that the coordinator streams, and shows the page that the address names.
import { ask, pill, put, say } from "./dom.js";
import * as fleet from "./fleet.js";
import * as jobs from "./jobs.js";
import * as models from "./models.js";
import * as checks from "./checks.js";
import * as ledger from "./ledger.js";

const pages = { fleet, jobs, models, checks, ledger };
export const state = { overview: {}, agents: {}, jobs: { latest: [], failed: [] } };
let current = "fleet";
let online = null;

for (const [name, page] of Object.entries(pages)) page.build(document.getElementById(name), state);

function show() {
  const name = location.hash.slice(1).split("/")[0];
  current = name in pages ? name : "fleet";
  for (const page of Object.keys(pages)) document.getElementById(page).hidden = page !== current;
  for (const link of document.querySelectorAll(".pages a")) {
    if (link.hash === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${document.getElementById(`${current}-title`)?.textContent ?? "Fleet"} · edge-agent`;
  pages[current].shown?.(state);
  render();
}

let asked = false;
function render() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    put(document.getElementById("network"), state.overview.network ? `network ${state.overview.network}` : "");
    pages[current].update(state);
    document.body.dataset.ready = "yes";
  });
}

function merge(target, change) {
  for (const [name, value] of Object.entries(change ?? {})) {
    if (value === null) delete target[name];
    else target[name] = value;
  }
}

function tellWhoIsThere() {
  const count = Object.values(state.agents).filter((agent) => agent.presence === "online").length;
  if (online !== null && count !== online) say(`${count} machines are online`);
  online = count;
}

function watch() {
  const link = document.getElementById("link");
  const stream = new EventSource("/dashboard/events");
  stream.addEventListener("whole", (event) => {
    const whole = JSON.parse(event.data);
    for (const part of Object.values(state)) for (const name of Object.keys(part)) delete part[name];
    for (const name of Object.keys(state)) Object.assign(state[name], whole[name]);
    changed();
  });
  stream.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    merge(state.overview, change.overview);
    merge(state.jobs, change.jobs);
    for (const [id, row] of Object.entries(change.agents ?? {})) merge((state.agents[id] ??= { id }), row);
    for (const id of change.gone ?? []) delete state.agents[id];
    changed();
  });
  stream.addEventListener("error", async () => {
    pill(link, "bad", "no connection");
    if (stream.readyState === EventSource.CLOSED) {
      const answer = await fetch("/dashboard/api/session").catch(() => null);
      if (answer?.status === 401) location.assign("/dashboard/login");
      else setTimeout(watch, 2000);
    }
  });
  function changed() {
    if (state.overview.connected) pill(link, "good", "live");
    else pill(link, "bad", "broker not connected");
    tellWhoIsThere();
    render();
  }
}

addEventListener("hashchange", () => {
  show();
  document.getElementById("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.getElementById("logout").addEventListener("click", async () => {
  await fetch("/dashboard/logout", { method: "POST", headers: { "x-edge-agent-dashboard": "1" } });
  location.assign("/dashboard/login");
});
ask("session").then(({ login, ledger: kept }) => {
  document.getElementById("logout").hidden = !login;
  document.querySelector('.pages a[href="#ledger"]').hidden = !kept;
});
show();
watch();
