// Throughput of the last five minutes: an area for all jobs, columns for those without a result. Plain SVG.
import { h, number, svg } from "./dom.js";

export function throughput() {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const failed = svg("path", { class: "failed" });
  const picture = svg("svg", { class: "chart", viewBox: "0 0 590 100", preserveAspectRatio: "none", role: "img" },
    svg("path", { class: "rule", d: "M0 99.5H590M0 50H590" }), area, line, failed);
  const most = h("span");
  const element = h("figure", { class: "card" },
    h("figcaption", {}, h("h2", {}, "Jobs a second, the last five minutes")),
    picture, h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, "5 min ago"), most, h("span", {}, "now")));
  const update = ({ per_second: rates = [], failed_per_second: bad = [] }) => {
    const top = Math.max(1, ...rates) * 1.1;
    const x = (place) => (place * 590) / Math.max(1, rates.length - 1);
    const y = (rate) => 99.5 - (rate / top) * 96;
    const points = rates.map((rate, place) => `${x(place).toFixed(1)} ${y(rate).toFixed(1)}`);
    line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    area.setAttribute("d", points.length ? `M0 99.5L${points.join("L")}L590 99.5Z` : "");
    failed.setAttribute("d", bad.map((rate, place) => (rate ? `M${x(place) - 3} 99.5V${y(rate)}h6V99.5Z` : "")).join(""));
    const last = rates.at(-1) ?? 0;
    picture.setAttribute("aria-label", `${number(last, 1)} jobs a second now, at most ${number(Math.max(0, ...rates), 1)} in the last five minutes`);
    most.textContent = `most ${number(Math.max(0, ...rates), 1)}/s`;
  };
  return { element, update };
}
