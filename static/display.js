/**
 * The settings of what is seen: captions and their size, colours, language. All of them are remembered.
 *
 * Place in the flow: beside `panel.js`; tells `app.js` whether captions are wanted, and the rest to `theme.js` and `language.js`.
 */

import { language } from "./language.js";
import { LANGUAGES } from "./messages.js";
import { recall, remember } from "./preferences.js";
import { chooseTheme, chosenTheme } from "./theme.js";

const SIZES = ["small", "medium", "large"];

const $ = (id) => document.getElementById(id);

export class Display {
  #captions;
  #size;
  #shown;

  /** @param {(shown: boolean) => void} captions is told whether captions are wanted, at once and at every change */
  constructor(captions) {
    this.#captions = captions;
    const size = recall("captions-size");
    this.#size = SIZES.includes(size) ? size : "medium";
    this.#shown = recall("captions") !== "off";
    $("captions-size").addEventListener("change", ({ target: { value } }) => {
      if (SIZES.includes(value)) this.#size = value;
      this.#show(value !== "off");
    });
    $("captions-button").addEventListener("click", () => this.#show(!this.#shown));
    $("theme").value = chosenTheme();
    $("theme").addEventListener("change", (e) => chooseTheme(e.target.value));
    $("language").replaceChildren(
      ...Object.entries(LANGUAGES).map(([code, name]) => Object.assign(new Option(name, code), { lang: code })),
    );
    $("language").value = language.code;
    $("language").addEventListener("change", (e) => (language.code = e.target.value));
    this.#show(this.#shown);
  }

  #show(shown) {
    this.#shown = shown;
    remember("captions", shown ? null : "off");
    remember("captions-size", this.#size);
    document.documentElement.dataset.captions = this.#size;
    $("captions-size").value = shown ? this.#size : "off";
    $("captions-button").setAttribute("aria-pressed", String(shown));
    this.#captions(shown);
  }
}

/** Offer the studio, where this server has one. */
export async function offerStudio(api) {
  const { enabled } = await api.studio().catch(() => ({}));
  $("studio").hidden = !enabled;
}
