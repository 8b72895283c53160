/**
 * What is told over the portrait: something that went wrong, and that the session is about to end.
 *
 * Place in the flow: `app.js` says what and when; the words are `explain`'s and the table's.
 */

import { language, t } from "./language.js";
import { explain } from "./protocol.js";

const NOTICE_MS = 12_000;
const SECOND_MS = 1000;

const $ = (id) => document.getElementById(id);

/** One failure at a time, with the way out; gone after a while, unless it is a lasting one. */
export class Notice {
  #values;
  #change;
  #timer = 0;
  #error = null;

  /**
   * @param {() => Record<string, string|number>} values what replaces `{name}` and the like
   * @param {() => void} change is told when it appears and when it goes
   */
  constructor(values, change) {
    this.#values = values;
    this.#change = change;
    $("notice-close").addEventListener("click", () => this.hush());
    language.addEventListener("change", () => this.#error && this.#write());
  }

  get shown() {
    return !$("notice").hidden;
  }

  /** Say in words what went wrong; `sticky` stays until it is dismissed or settled. */
  tell(error, { sticky = false } = {}) {
    this.#error = error;
    this.#write();
    $("notice").hidden = false;
    clearTimeout(this.#timer);
    if (!sticky) this.#timer = setTimeout(() => this.hush(), NOTICE_MS);
    this.#change();
  }

  /** Take it away, if its code begins so. */
  hush(prefix = "") {
    if (prefix && !$("notice").dataset.code?.startsWith(prefix)) return;
    this.#error = null;
    $("notice").hidden = true;
    $("notice-text").textContent = $("notice-title").textContent = "";
    this.#change();
  }

  #write() {
    const words = explain(this.#error, this.#values());
    $("notice-title").textContent = words.title;
    $("notice-text").textContent = words.text;
    $("notice").dataset.code = words.code;
  }
}

/** Seconds as 1:05. */
function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** The time that is left, counted down for eyes every second and told to screen readers when the server tells it. */
export class Ending {
  #timer = 0;
  #endMs = 0;
  #reason = "";

  constructor() {
    language.addEventListener("change", () => this.#reason && this.#write(true));
  }

  /** @param {{reason: string, seconds_left: number|null}} ending null: it does not end after all */
  tell({ reason, seconds_left: seconds }) {
    this.clear();
    if (seconds === null) return;
    this.#reason = reason === "idle" ? "idle" : "too_long";
    this.#endMs = performance.now() + seconds * SECOND_MS;
    this.#write(true);
    $("ending").hidden = false;
    this.#timer = setInterval(() => this.#write(false), SECOND_MS);
  }

  /** Somebody speaks: who was only idle stays, and the server will say so. */
  heard() {
    if (this.#reason === "idle") this.clear();
  }

  clear() {
    clearInterval(this.#timer);
    this.#reason = "";
    $("ending").hidden = true;
    $("ending-spoken").textContent = "";
  }

  #write(aloud) {
    const seconds = Math.max(0, Math.round((this.#endMs - performance.now()) / SECOND_MS));
    const title = t(`ending.${this.#reason}`);
    const how = t(`ending.${this.#reason}.how`, { time: clock(seconds) });
    $("ending-title").textContent = title;
    $("ending-text").textContent = how;
    if (aloud) $("ending-spoken").textContent = `${title}. ${how}`;
  }
}
