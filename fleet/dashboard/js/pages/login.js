// Signing in: an operator's token becomes a session cookie that no script can read. The token is not kept here.

import { post } from "../api.js";
import { h, icon } from "../dom.js";

export const page = {
  title: () => "Sign in",
  every: 60_000,
  focus: "token",
  load: async () => null,

  view(_, __, { signedIn }) {
    const problem = h("p", { class: "form-problem", role: "alert", hidden: true });
    async function submit(event) {
      event.preventDefault();
      const form = event.currentTarget;
      const button = form.querySelector("button");
      const field = form.querySelector("input");
      const said = form.querySelector(".form-problem");
      said.hidden = true;
      button.disabled = true;
      try {
        const who = await post("session", { token: field.value.trim() });
        field.value = "";
        signedIn(who);
      } catch (error) {
        said.textContent =
          error.status === 401 || error.status === 403
            ? "This token does not count: it is wrong, expired or revoked."
            : `${error.message}.`;
        said.hidden = false;
        button.disabled = false;
        field.focus();
        field.select();
      }
    }
    return h(
      "div",
      { class: "login" },
      h(
        "svg",
        { class: "login-mark", "aria-hidden": "true", focusable: "false" },
        h("use", { href: "#i-brand" }),
      ),
      h("h1", {}, "Prestage fleet"),
      h(
        "p",
        { class: "muted" },
        "Sign in with your token. An admin makes one under Access, or on the server: ",
        h("code", {}, "prestage-fleet token new --name YOU --role operator"),
        ".",
      ),
      h(
        "form",
        { on: { submit }, autocomplete: "on" },
        h(
          "div",
          { class: "field" },
          h("label", { for: "token" }, "Token"),
          h("input", {
            id: "token",
            name: "token",
            type: "password",
            required: true,
            autocomplete: "current-password",
            spellcheck: "false",
            maxlength: "500",
          }),
        ),
        problem,
        h("button", { type: "submit", class: "button primary" }, icon("key"), "Sign in"),
      ),
    );
  },
};
