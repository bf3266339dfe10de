// Asking before something is done: what it will do in words, a reason, and then the act.
//
// The browser's own modal dialog: it keeps the focus inside, makes the rest inert, closes on Escape. The focus goes back
// to where it was, or to the heading if that is gone meanwhile.

import { h, icon } from "./dom.js";

const REASON_MIN = 3; // characters: "ok" is no reason that helps anybody a year later

/**
 * Asks. `what`: {title, body: nodes, verb, danger, reason: label or undefined, fields: nodes, act(reason) → promise}.
 * Resolves to what `act` gave, or undefined if the person thought better of it. An act that fails says so in the dialog.
 */
export function ask(what) {
  const before = document.activeElement;
  return new Promise((resolve) => {
    let result;
    let busy = false;
    const problem = h("p", { class: "form-problem", role: "alert", hidden: true });
    const reason = what.reason
      ? h("textarea", {
          id: "dialog-reason",
          name: "reason",
          rows: "3",
          required: true,
          maxlength: "400",
          minlength: String(REASON_MIN),
          autocomplete: "off",
          "aria-describedby": "dialog-reason-hint",
        })
      : undefined;
    const confirm = h(
      "button",
      { type: "submit", class: ["button", what.danger ? "danger" : "primary"] },
      what.verb,
    );
    const cancel = h(
      "button",
      { type: "button", class: "button", on: { click: () => busy || dialog.close() } },
      what.refuse ?? "Cancel",
    );
    const form = h(
      "form",
      { method: "dialog", novalidate: true, on: { submit } },
      h("h2", { id: "dialog-title" }, what.danger ? icon("warning", "is-bad") : null, what.title),
      h("div", { id: "dialog-body", class: "dialog-body" }, what.body),
      what.fields,
      reason
        ? h(
            "div",
            { class: "field" },
            h("label", { for: "dialog-reason" }, what.reason),
            reason,
            h(
              "p",
              { id: "dialog-reason-hint", class: "hint" },
              "Required. It is kept in the audit log with your name.",
            ),
          )
        : null,
      problem,
      h("div", { class: "dialog-actions" }, cancel, confirm),
    );
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "dialog-title", "aria-describedby": "dialog-body" },
      form,
    );

    async function submit(event) {
      event.preventDefault();
      if (busy) return;
      if (reason && reason.value.trim().length < REASON_MIN) {
        say("Say why, so that whoever reads the audit log understands.");
        reason.setAttribute("aria-invalid", "true");
        reason.focus();
        return;
      }
      if (!form.checkValidity()) {
        const wrong = form.querySelector(":invalid");
        say(wrong?.validationMessage ?? "Something is missing.");
        wrong?.focus();
        return;
      }
      busy = true;
      confirm.disabled = true;
      confirm.setAttribute("aria-busy", "true");
      problem.hidden = true;
      try {
        result = (await what.act(reason?.value.trim(), new FormData(form))) ?? true;
        dialog.close();
      } catch (error) {
        say(`It was not done: ${error.message}.`);
        confirm.disabled = false;
        confirm.focus();
      } finally {
        busy = false;
        confirm.removeAttribute("aria-busy");
      }
    }

    function say(text) {
      problem.textContent = text;
      problem.hidden = false;
    }

    dialog.addEventListener("cancel", (event) => busy && event.preventDefault());
    dialog.addEventListener("close", () => {
      dialog.remove();
      const back = before?.isConnected ? before : document.querySelector("main h1");
      back?.focus();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    // Not on the button that does it: Enter by habit must not halt a fleet.
    (reason ?? form.querySelector("input, select, textarea") ?? cancel).focus();
  });
}

/** Says that something was done, politely and for a while. */
export function announce(text) {
  const place = document.getElementById("announcements");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove("shown"), 8000);
}
