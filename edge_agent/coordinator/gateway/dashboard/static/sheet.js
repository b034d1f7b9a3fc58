// The sheet: a modal dialog for one machine, one job, or one question. The browser keeps the focus inside and gives it back.
import { h, say } from "./dom.js";

const dialog = document.getElementById("sheet");
let closed = () => {};

dialog.addEventListener("close", () => closed());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

export function openSheet(title, subtitle, content, whenClosed = () => {}) {
  closed();
  closed = whenClosed;
  dialog.replaceChildren(
    h("div", { class: "sheet" },
      h("div", { class: "sheet-top" },
        h("div", {}, h("h2", { id: "sheet-title" }, title), subtitle ? h("span", { class: "sub mono" }, subtitle) : null),
        h("span", { class: "spacer" }),
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close")),
      content));
  if (!dialog.open) dialog.showModal();
}

export function closeSheet() {
  dialog.close();
}

// Ask before something is done. `fields` are inputs by name; `act(values)` does it and returns what to say.
export function confirmSheet({ title, text, verb, danger = false, fields = [], act, back = closeSheet }) {
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const button = h("button", { type: "submit", class: danger ? "danger" : "" }, verb);
  const inputs = fields.map(({ name, label, hint, ...rest }) => {
    const input = h("input", { id: `field-${name}`, name, autocomplete: "off", ...rest });
    return { name, input, element: h("div", { class: "field" }, h("label", { for: `field-${name}` }, label), input,
      hint ? h("span", { class: "hint" }, hint) : null) };
  });
  const form = h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      wrong.hidden = true;
      try {
        say(await act(Object.fromEntries(inputs.map(({ name, input }) => [name, input.value.trim()]))));
        back();
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
        button.disabled = false;
      }
    },
  }, h("p", {}, text), ...inputs.map(({ element }) => element), wrong,
    h("div", { class: "actions" }, button, h("button", { type: "button", class: "quiet", onclick: back }, "Not now")));
  openSheet(title, null, form);
  (inputs[0]?.input ?? button).focus();
}
