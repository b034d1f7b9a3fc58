// Small helpers: elements, text for people, and lists that change in place so that focus and selection stay.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return fill(element, attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

export function put(element, text) {
  const value = text == null ? "" : String(text);
  if (element.textContent !== value) element.textContent = value;
}

// Fill `container` with `items`, keeping the elements of those that stay. `make(item)` returns {element, update(item)}.
export function keyed(container, items, key, make) {
  const known = (container.keyed ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [id, row] of known) {
    if (!wanted.has(id)) {
      row.element.remove();
      known.delete(id);
    }
  }
  let before = container.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let row = known.get(id);
    if (!row) known.set(id, (row = make(item)));
    row.update(item);
    if (row.element === before) before = before.nextElementSibling;
    else container.insertBefore(row.element, before);
  }
}

export const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export function milliseconds(ms) {
  if (ms == null) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

export function bytes(count) {
  if (count == null) return "–";
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  return `${count} B`;
}

export function ago(wallMs) {
  if (wallMs == null) return "never";
  const seconds = Math.max(0, (Date.now() - wallMs) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

export const clock = (wallMs) => new Date(wallMs).toLocaleTimeString("en-GB");

export const shortId = (id) => (id ? id.slice(0, 8) : "–");

export function nameOf(agent, id) {
  if (!agent) return shortId(id);
  const label = agent.operator_labels?.[0] ?? agent.labels?.[0];
  return label ?? shortId(agent.id);
}

export function pill(element, kind, text) {
  const wanted = `pill ${kind}`.trim();
  if (element.className !== wanted) element.className = wanted;
  put(element, text);
}

export function meter(percent) {
  const fillBar = svg("rect", { class: "fill", height: 9, rx: 4 });
  const bar = svg("svg", { viewBox: "0 0 60 9", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { class: "track", width: 60, height: 9, rx: 4 }), fillBar);
  const text = h("span");
  const element = h("span", { class: "meter" }, text, bar);
  const update = (value) => {
    put(text, value == null ? "–" : `${value} %`);
    fillBar.setAttribute("width", value == null ? 0 : (60 * value) / 100);
    element.className = value >= 95 ? "meter bad" : value >= 80 ? "meter warn" : "meter";
  };
  update(percent);
  return { element, update };
}

export function empty(title, ...text) {
  return h("div", { class: "empty" }, h("strong", {}, title), ...text);
}

export async function ask(path, options = {}) {
  const answer = await fetch(`/dashboard/api/${path}`, {
    ...options,
    headers: { "x-edge-agent-dashboard": "1", ...(options.body ? { "content-type": "application/json" } : {}) },
  });
  if (answer.status === 401) location.assign("/dashboard/login");
  const body = await answer.json();
  if (!answer.ok) throw new Error([body.error, body.hint].filter(Boolean).join(" "));
  return body;
}

export function say(text) {
  put(document.getElementById("said"), text);
}
