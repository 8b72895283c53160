/**
 * Sound files: dropped anywhere on the page or chosen with the button.
 *
 * Place in the flow: hands each file to `app.js`, which sends it; shows its name and progress meanwhile, and asks first in which voice it is to be heard where
 * there is a choice. One file at a time: a second one waits for the first, because utterances are spoken in order.
 */

import { AUDIO_TYPES, problem } from "./protocol.js";

const ENDING = /\.(wav|mp3|flac|ogg|oga|opus|m4a|aac|mp4|webm)$/i;

export class Files {
  #ui;
  #otherVoice;
  #send;
  #fail;
  #queue = Promise.resolve();
  #abort = null;
  #depth = 0;

  /**
   * @param {Record<"drop"|"button"|"input"|"box"|"name"|"progress"|"cancel"|"choice"|"plain"|"changed", HTMLElement>} ui
   * @param {() => string} otherVoice what the other voice is called; "" where there is none
   * @param {(file: File, options: {changed: boolean, onProgress: (fraction: number) => void, onPhase: (words: string) => void,
   *   signal: AbortSignal}) => Promise<unknown>} send
   * @param {(error: Error) => void} fail tells a person what went wrong
   */
  constructor(ui, otherVoice, send, fail) {
    this.#ui = ui;
    this.#otherVoice = otherVoice;
    this.#send = send;
    this.#fail = fail;
    ui.input.accept = AUDIO_TYPES;
    ui.button.addEventListener("click", () => ui.input.click());
    ui.input.addEventListener("change", () => {
      this.#take([...ui.input.files]);
      ui.input.value = "";
    });
    ui.cancel.addEventListener("click", () => this.#abort?.abort());
    this.#watchDrops();
  }

  /** The overlay follows files only; dragged text and links are left to the browser. */
  #watchDrops() {
    const carriesFiles = (e) => e.dataTransfer?.types.includes("Files");
    const over = (depth) => {
      this.#depth = Math.max(0, depth);
      this.#ui.drop.hidden = this.#depth === 0;
    };
    // enter and leave come for every element that is crossed: only their balance tells whether the page was left
    addEventListener("dragenter", (e) => carriesFiles(e) && over(this.#depth + 1));
    addEventListener("dragleave", (e) => carriesFiles(e) && over(this.#depth - 1));
    addEventListener("dragover", (e) => {
      if (!carriesFiles(e)) return;
      e.preventDefault();
      e.dataTransfer.dropEffect = "copy";
    });
    addEventListener("drop", (e) => {
      if (!carriesFiles(e)) return;
      e.preventDefault();
      over(0);
      this.#take([...e.dataTransfer.files]);
    });
  }

  #take(files) {
    for (const file of files) this.#queue = this.#queue.then(() => this.#one(file));
  }

  async #one(file) {
    const { box, name, progress } = this.#ui;
    if (!ENDING.test(file.name) && !file.type.startsWith("audio/")) return this.#fail(problem("file_not_audio"));
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    name.textContent = file.name;
    progress.value = 0;
    box.hidden = false;
    try {
      const changed = await this.#choose(signal);
      const onProgress = (fraction) => {
        // All sent: what is left is the server decoding it, whose length nobody knows.
        if (fraction < 1) progress.value = fraction;
        else progress.removeAttribute("value");
      };
      await this.#send(file, { changed, onProgress, onPhase: (words) => (name.textContent = words), signal });
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    } finally {
      box.hidden = true;
    }
  }

  /** In which voice, where there are two: true for the other one. Rejects when cancelled. */
  async #choose(signal) {
    const { choice, plain, changed, progress } = this.#ui;
    const other = this.#otherVoice();
    if (!other) return false;
    changed.textContent = other;
    choice.hidden = false;
    progress.hidden = true;
    changed.focus({ preventScroll: true });
    try {
      return await new Promise((resolve, reject) => {
        plain.onclick = () => resolve(false);
        changed.onclick = () => resolve(true);
        signal.addEventListener("abort", () => reject(new DOMException("Not wanted.", "AbortError")), { once: true });
      });
    } finally {
      choice.hidden = true;
      progress.hidden = false;
    }
  }
}
