import { empty, h } from "./dom.js";

export function build(section) {
  section.append(h("h1", { id: "checks-title" }, "Checks"), h("div", { class: "card" }, empty("Nothing is here yet")));
}

export function update() {}
