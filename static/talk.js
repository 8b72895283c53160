/**
 * The talk button and the talk key: a microphone that listens always, or only while they are held.
 *
 * Place in the flow: joins the button, the space bar, a `Microphone` and a `TalkingHead`; `app.js` says which way of talking is wanted.
 *
 * States: `off`, `asking` for permission; then, where it listens always, `on` and `muted`, and where it is held, `ready` and `held`.
 *
 * Invariants:
 *   - no microphone opens once it was stopped, however late the browser answers; of two that are asked for, the last one counts;
 *   - held, and a moment longer, is the only time at which sound leaves the browser while the microphone is one to hold;
 *   - a key that comes up where nobody sees it, in another window or under a system dialog, counts as up;
 *   - who can click but not hold, as with a screen reader, clicks to begin and clicks to end.
 *
 * Events: `change` {state}, `failed` {error}, `tap`: held too briefly to have said anything.
 */

import { language, t } from "./language.js";

/** Sound arrives after the news of the key; the server listens about as much longer. */
const RELEASE_MS = 250;
/** Shorter is a slip, for the server too. */
const TAP_MS = 250;

const KEYS = [" ", "Enter"];

/** What the button says: of a microphone that listens always, and of one to hold. */
const LABELS = {
  off: ["talk.start", "talk.hold"],
  asking: ["talk.asking"],
  on: ["talk.mute"],
  muted: ["talk.unmute"],
  ready: ["talk.hold"],
  held: ["talk.listening"],
};

export class Talk extends EventTarget {
  #box;
  #button;
  #label;
  #microphone;
  #head;
  #state = "off";
  /** What it was before the browser was asked. */
  #before = "off";
  #holds = false;
  /** What holds it down: "pointer", "key", "click", or "" while it is up. */
  #pressed = "";
  #pressedMs = 0;
  #closing = 0;

  /**
   * @param {{box: HTMLElement, button: HTMLElement, label: HTMLElement}} ui
   * @param {import("./microphone.js").Microphone} microphone
   * @param {import("./talking-head.js").TalkingHead} head
   */
  constructor({ box, button, label }, microphone, head) {
    super();
    this.#box = box;
    this.#button = button;
    this.#label = label;
    this.#microphone = microphone;
    this.#head = head;
    button.addEventListener("pointerdown", (e) => this.#pointer(e));
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(type, () => this.#release("pointer"));
    for (const type of ["keydown", "keyup"]) button.addEventListener(type, (e) => this.#buttonKey(e));
    button.addEventListener("click", (e) => this.#click(e));
    // A long touch is a hold here, and no question about a menu.
    button.addEventListener("contextmenu", (e) => this.#holds && e.preventDefault());
    addEventListener("keyup", (e) => KEYS.includes(e.key) && this.#release("key"));
    addEventListener("blur", () => this.#release());
    document.addEventListener("visibilitychange", () => document.hidden && this.#release());
    microphone.addEventListener("level", ({ detail }) => button.style.setProperty("--level", microphone.muted ? 0 : detail.level.toFixed(3)));
    microphone.addEventListener("lost", () => {
      head.setMicrophone(null);
      // Another one may have been asked for.
      if (this.#state !== "asking") this.#set("off");
    });
    language.addEventListener("change", () => this.#describe());
    this.#set("off");
  }

  get state() {
    return this.#state;
  }

  /** Whether the microphone is one to hold. */
  get holds() {
    return this.#holds;
  }

  set holds(holds) {
    if (holds === this.#holds) return;
    this.#holds = holds;
    this.#pressed = "";
    clearTimeout(this.#closing);
    this.#head.pushToTalk(holds ? false : null);
    this.#settle();
  }

  /** Take what the microphone is to do from the head's mode again. */
  refresh() {
    this.#set(this.#state);
  }

  /** Open a microphone, in place of the one that is open. */
  async start(deviceId) {
    if (this.#state !== "asking") this.#before = this.#state;
    this.#set("asking");
    try {
      const track = await this.#microphone.start(deviceId);
      // Stopped, or the choice has changed: whoever did that says what becomes of it.
      if (!track) return;
      this.#settle(this.#before === "muted");
      await this.#head.setMicrophone(track);
    } catch (error) {
      if (this.#microphone.open) this.#settle(this.#before === "muted");
      else this.#set("off");
      this.dispatchEvent(new CustomEvent("failed", { detail: { error } }));
    }
  }

  /** Let the microphone go, and the one that is asked for. */
  stop() {
    this.#release();
    this.#microphone.stop();
    this.#head.setMicrophone(null);
    this.#set("off");
  }

  /** The talk key of the page goes down; that it comes up is seen here. */
  key(event) {
    if (event.repeat) return;
    if (this.#holds) this.#press("key");
    else this.#toggle();
  }

  #press(by) {
    if (this.#pressed) return;
    this.#pressed = by;
    if (this.#state === "off") this.start();
    else if (this.#state === "ready") this.#hold();
  }

  /** @param {string} by what has let go; anything when left out */
  #release(by = this.#pressed) {
    if (!this.#pressed || by !== this.#pressed) return;
    this.#pressed = "";
    if (this.#state !== "held") return;
    this.#head.pushToTalk(false);
    this.#closing = setTimeout(() => (this.#microphone.muted = true), RELEASE_MS);
    this.#set("ready");
    if (performance.now() - this.#pressedMs < TAP_MS) this.dispatchEvent(new Event("tap"));
  }

  #hold() {
    clearTimeout(this.#closing);
    this.#pressedMs = performance.now();
    this.#microphone.muted = false;
    this.#head.pushToTalk(true);
    this.#set("held");
  }

  /** What an open microphone does now. */
  #settle(muted = false) {
    if (!this.#microphone.open) return this.#set(this.#state);
    this.#microphone.muted = this.#holds || muted;
    if (!this.#holds) return this.#set(muted ? "muted" : "on");
    // The question for permission may have been answered with the button still down.
    return this.#pressed ? this.#hold() : this.#set("ready");
  }

  #toggle() {
    if (this.#state === "off") return this.start();
    if (this.#state === "asking") return undefined;
    return this.#settle(!this.#microphone.muted);
  }

  #pointer(event) {
    if (!this.#holds || !event.isPrimary || event.button !== 0) return;
    this.#button.setPointerCapture(event.pointerId);
    this.#press("pointer");
  }

  /** A key that holds the button must not click it as well. */
  #buttonKey(event) {
    if (!this.#holds || !KEYS.includes(event.key)) return;
    event.preventDefault();
    if (event.type === "keydown" && !event.repeat) this.#press("key");
  }

  #click(event) {
    if (!this.#holds) return this.#toggle();
    // With a pointer it was held; a click without one is an assistive technology's.
    if (event.detail > 0) return undefined;
    return this.#pressed ? this.#release("click") : this.#press("click");
  }

  #describe() {
    this.#label.textContent = t(LABELS[this.#state].at(this.#holds ? -1 : 0));
  }

  /** @param {"off"|"asking"|"on"|"muted"|"ready"|"held"} state */
  #set(state) {
    this.#state = state;
    this.#box.dataset.state = state;
    this.#box.dataset.way = this.#holds ? "hold" : "always";
    this.#describe();
    if (this.#holds) this.#button.setAttribute("aria-pressed", String(state === "held"));
    else this.#button.removeAttribute("aria-pressed");
    this.#button.querySelector("use").setAttribute("href", state === "muted" ? "#i-mic-off" : "#i-mic");
    // In a conversation the server hears for itself when somebody speaks.
    this.#head.listen(state === "on" && this.#head.mirroring);
    this.dispatchEvent(new CustomEvent("change", { detail: { state } }));
  }
}
