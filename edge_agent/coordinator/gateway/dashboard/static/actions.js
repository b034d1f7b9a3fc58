// What the operator can do with a machine.
import { h } from "./dom.js";
import { openSheet } from "./sheet.js";

export function actionsFor() {
  return h("div", { class: "actions" });
}

export function enrol() {
  openSheet("Add a machine", null, h("div", {},
    h("p", {}, "On the machine, with the coordinator's public key copied there:"),
    h("code", { class: "command" }, "edge-agent run --broker mqtt://BROKER:1883 --coordinator-key coordinator.pub"),
    h("p", { class: "hint" }, "It asks to be admitted and then stands in this list, waiting for your approval.")));
}
