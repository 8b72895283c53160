/**
 * The settings of the conversation: the way of talking, the style, the language model; and the one quiet offer of a model that was found.
 *
 * Place in the flow: beside `panel.js`, which has what belongs to the picture and the connection; sets a `TalkingHead` and tells `app.js` the way of talking.
 *
 * A control is shown only where there is a choice.
 */

import { language, t } from "./language.js";

/** What a person chooses between, and what it means to the server. */
export const WAYS = {
  always: { mode: "converse", holds: false },
  hold: { mode: "converse", holds: true },
  typed: { mode: "converse", holds: false },
  mirror: { mode: "mirror", holds: false },
  say: { mode: "say", holds: false },
};

/** The model that is none: a script of the server's own. */
const SCRIPT = "host";

const $ = (id) => document.getElementById(id);

export class Conversation extends EventTarget {
  #head;
  #face = "";
  #offered = "";
  #declined = false;
  #config = null;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {(way: keyof WAYS) => void} chooseWay
   */
  constructor(head, chooseWay) {
    super();
    this.#head = head;
    $("way").addEventListener("change", (e) => chooseWay(e.target.value));
    $("style").addEventListener("change", (e) => head.setStyle(e.target.value));
    $("model").addEventListener("change", (e) => this.#choose(e.target.value));
    $("offer-yes").addEventListener("click", () => this.#choose(this.#offered));
    $("offer-no").addEventListener("click", () => this.#close());
    language.addEventListener("change", () => this.#config && this.#describe());
  }

  /** The way of talking there is at first. */
  set way(way) {
    $("way").value = way;
    $("devices-label").hidden = ["typed", "say"].includes(way);
  }

  /** Whether a found model is on offer just now. */
  get offers() {
    return !$("offer").hidden;
  }

  /** Show what this server can do. */
  show(config) {
    this.#config = config;
    const { hears, conversation_note: note, language_models: models, language_model: model } = config;
    $("way-state").textContent = hears ? "" : note;
    for (const option of $("way").options) if (["always", "hold"].includes(option.value)) option.disabled = !hears;
    $("model-label").hidden = models.length < 2;
    $("model").replaceChildren(...models.map(({ id, title }) => new Option(title, id)));
    $("model").value = model;
    this.#describe();
    this.#arrange();
  }

  #describe() {
    const { language_models: models, language_model: model } = this.#config;
    const found = models.filter(({ id }) => id !== model);
    $("model-state").textContent = found.length ? t("model.found") : "";
    $("connect").hidden = model !== SCRIPT || found.length > 0;
    // Whoever has chosen a model in the options needs no other on offer.
    const offered = model === SCRIPT ? found[0] : undefined;
    this.#offered = offered?.id ?? "";
    $("offer-text").textContent = offered ? t("offer.found", { title: offered.title }) : "";
  }

  /** Show the styles of a face; of another one than before, the style it begins with is chosen. */
  showStyles({ name, styles = [], style = "" }) {
    if (name === this.#face) return;
    this.#face = name;
    $("style-label").hidden = styles.length < 2;
    $("style").replaceChildren(...styles.map((each) => new Option(each.title, each.name)));
    $("style").value = style;
  }

  #choose(id) {
    $("model").value = id;
    this.#head.setLanguageModel(id);
    this.#close();
  }

  #close() {
    this.#declined = true;
    this.#arrange();
  }

  #arrange() {
    const offers = Boolean(this.#offered) && !this.#declined;
    if ($("offer").hidden === !offers) return;
    $("offer").hidden = !offers;
    this.dispatchEvent(new Event("change"));
  }
}
