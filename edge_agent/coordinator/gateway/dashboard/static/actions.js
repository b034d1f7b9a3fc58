// What the operator can do with a machine, each with a question before it.
import { ask, h, nameOf } from "./dom.js";
import { closeSheet, confirmSheet, openSheet } from "./sheet.js";

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
    text: "For ever: this key is never let in again, and to come back the machine needs a new one. What it holds goes to other machines, and nothing that it says counts any more.",
    act: async () => { await act(agent, "revoke"); return `${name} is revoked`; },
  });
  const reinstate = button("Let it work again", "quiet", {
    title: `Let ${name} work again?`, verb: "Let it work", text: "Before its rest is over. It begins anew: every result of it is checked, and what was proven wrong is not forgotten.",
    act: async () => { await act(agent, "reinstate"); return `${name} may work again`; },
  });
  const rests = Math.max(agent.resting_until_ms ?? 0, agent.trust?.resting_until_ms ?? 0) > Date.now();
  return h("div", { class: "actions" }, ...(agent.approved ? [...(rests ? [reinstate] : []), drain, labels, revoke] : [approve, labels]));
}

export function enrol() {
  let made = null;
  confirmSheet({
    title: "Add a machine", verb: "Make a token",
    text: "A token lets one machine in, once, within an hour. A machine can also ask without one; it then stands in the list, waiting for your approval.",
    fields: [{ name: "owner", label: "Whose machine is it?", maxlength: 64, hint: "Optional. A machine without an owner counts as your own." }],
    act: async ({ owner }) => { made = await ask("tokens", { method: "POST", body: JSON.stringify(owner ? { owner } : {}) }); return "The token is made"; },
    back: () => (made ? showToken(made) : closeSheet()),
  });
}

function showToken({ token, owner }) {
  openSheet("On the machine", owner ? `for ${owner}` : null, h("div", {},
    h("p", {}, "Install the agent there, then:"),
    h("code", { class: "command" }, `edge-agent enrol ${location.origin} ${token}\nedge-agent run`),
    h("p", { class: "hint" }, "Good for an hour, for one machine. It is shown only now.")));
}
