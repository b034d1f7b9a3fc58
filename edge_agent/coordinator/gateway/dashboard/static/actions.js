// What the operator can do with a machine, each with a question before it.
import { ask, h, nameOf } from "./dom.js";
import { confirmSheet, openSheet } from "./sheet.js";

const act = (agent, action, body = {}) => ask(`agents/${agent.id}/${action}`, { method: "POST", body: JSON.stringify(body) });

export function actionsFor(agent, back) {
  const name = nameOf(agent);
  const button = (text, kind, question) =>
    h("button", { type: "button", class: kind, onclick: () => confirmSheet({ back, ...question }) }, text);
  const owner = { name: "owner", label: "Whose machine is it?", maxlength: 64, value: agent.owner ?? "",
    hint: "Optional. What a machine without an owner computes counts as your own." };
  const approve = button("Approve", "", {
    title: `Let ${name} work here?`, verb: "Approve", fields: [owner],
    text: "It is given jobs, and its results count. Compare its id with what the machine shows.",
    act: async (values) => { await act(agent, "approve", values.owner ? { owner: values.owner } : {}); return `${name} is approved`; },
  });
  const labels = button("Labels", "quiet", {
    title: `What do you call ${name}?`, verb: "Save", text: "Jobs can ask for a label. What its owner calls it stays.",
    fields: [{ name: "labels", label: "Labels, separated by blanks", maxlength: 1100, value: (agent.operator_labels ?? []).join(" ") }],
    act: async (values) => { await act(agent, "label", { labels: values.labels.split(/[\s,]+/).filter(Boolean) }); return "The labels are saved"; },
  });
  const drain = agent.drained
    ? button("Give it jobs again", "quiet", { title: `Give ${name} jobs again?`, verb: "Give it jobs", text: "Whether it works is still its owner's to say.",
      act: async () => { await act(agent, "undrain"); return `${name} gets jobs again`; } })
    : button("Drain", "quiet", { title: `Drain ${name}?`, verb: "Drain", text: "It finishes what it has and gets nothing new, until you say otherwise.",
      act: async () => { await act(agent, "drain"); return `${name} is drained`; } });
  const revoke = button("Revoke", "danger", {
    title: `Revoke ${name}?`, verb: "Revoke", danger: true,
    text: "What it holds goes to other machines, and nothing that it says counts any more.",
    act: async () => { await act(agent, "revoke"); return `${name} is revoked`; },
  });
  return h("div", { class: "actions" }, ...(agent.approved ? [drain, labels, revoke] : [approve, labels]));
}

export function enrol() {
  openSheet("Add a machine", null, h("div", {},
    h("p", {}, "On the machine, with the coordinator's public key copied there:"),
    h("code", { class: "command" }, "edge-agent run --broker mqtt://BROKER:1883 --coordinator-key coordinator.pub"),
    h("p", { class: "hint" }, "It asks to be admitted and then stands in this list, waiting for your approval.")));
}
