/**
 * Words over the portrait while there is no live picture: what happened, what happens next, what to do.
 *
 * Place in the flow: shows the `state` events of a `TalkingHead`; whoever has the element decides when.
 */

import { language, t } from "./language.js";
import { explain } from "./protocol.js";

/** A retry closer than this needs no button. */
const SOON_MS = 1500;
const TICK_MS = 250;

export class Veil {
  #ui;
  #countdown = 0;
  #shown = null;

  /**
   * @param {Record<"box"|"spinner"|"title"|"text"|"action", HTMLElement>} ui
   * @param {() => void} retry the button was pressed
   */
  constructor(ui, retry) {
    this.#ui = ui;
    ui.action.addEventListener("click", retry);
    language.addEventListener("change", () => this.#shown && this.show(...this.#shown));
  }

  /**
   * @param {{state: string, reason: Error|null, retryAt: number}} detail of a `state` event
   * @param {Record<string, string>} values what replaces `{name}` and the like
   */
  show({ state, reason, retryAt }, values) {
    this.#shown = [{ state, reason, retryAt }, values];
    clearInterval(this.#countdown);
    const { box, spinner, title, text, action } = this.#ui;
    const why = state === "closed" ? { code: "session_ended", message: "" } : reason;
    const words = why ? explain(why, values) : { title: t("veil.connecting"), text: t("veil.soon") };
    const busy = ["connecting", "reconnecting"].includes(state);
    box.dataset.code = words.code ?? "";
    spinner.hidden = !busy;
    title.textContent = words.title;
    action.hidden = busy && retryAt - performance.now() < SOON_MS;
    action.textContent = t(words.code === "session_ended" ? "veil.again" : "veil.now");
    box.hidden = false;
    text.textContent = reason?.queue ? place(reason.queue.position) : words.text;
    if (!retryAt) return;
    const count = () => {
      const s = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
      action.textContent = s ? t("veil.in", { s }) : t("veil.trying");
    };
    count();
    this.#countdown = setInterval(count, TICK_MS);
  }

  hide() {
    clearInterval(this.#countdown);
    this.#shown = null;
    this.#ui.box.hidden = true;
  }
}

/** A place in the line, in words. */
function place(position) {
  return position === 1 ? t("veil.next") : t("veil.place", { position });
}
