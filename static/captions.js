/**
 * Captions: the sentence that is being spoken, its words lighting up as they are said.
 *
 * Place in the flow: fed by `app.js` with the `caption`, `speaking`, `paused`, `resumed` and `interrupted` events; a second one shows what the person said. For eyes the sentence
 * appears over the portrait, and ends where it was interrupted; for screen readers the same sentence goes once, whole, into a polite live region (word by word
 * would be unbearable), whether captions are shown or not.
 */

/** How long the last sentence stays after its sound. */
const LINGER_MS = 900;

export class Captions {
  #element;
  #spoken;
  #said;
  #lingerMs;
  #visible = true;
  #words = [];
  #timers = [];
  /** When which word is lit, and since when nothing sounds; both in `performance.now()`. */
  #due = [];
  #pausedAt = null;
  #hide = 0;

  /**
   * @param {HTMLElement} element where the sentence is shown
   * @param {HTMLElement|null} spoken polite live region
   * @param {{said?: boolean, lingerMs?: number}} options said: the words are lit from the start
   */
  constructor(element, spoken, { said = false, lingerMs = LINGER_MS } = {}) {
    this.#element = element;
    this.#spoken = spoken;
    this.#said = said;
    this.#lingerMs = lingerMs;
  }

  get visible() {
    return this.#visible;
  }

  set visible(visible) {
    this.#visible = visible;
    this.#element.hidden = !visible || !this.#words.length;
  }

  /**
   * A sentence begins to sound.
   *
   * @param {{text: string, start_ms?: number, words?: Array<{text: string, start_ms: number}>}} caption all times count
   *     from the start of the utterance
   */
  show({ text, start_ms = 0, words = [] }) {
    this.clear();
    if (!text) return;
    const pieces = split(text, words);
    this.#words = pieces.map(({ slice }) => Object.assign(document.createElement("span"), { textContent: slice }));
    const line = document.createElement("span");
    line.append(...this.#words);
    this.#element.replaceChildren(line);
    const now = performance.now();
    this.#due = pieces.map((piece) => now + Math.max(0, (piece.start_ms ?? start_ms) - start_ms));
    this.#light();
    this.#element.hidden = !this.#visible;
    if (this.#said) this.#words.forEach((span) => span.classList.add("said"));
    if (this.#spoken) this.#spoken.textContent = text;
  }

  /** The sound waits: no word is lit meanwhile. */
  pause() {
    if (this.#pausedAt !== null) return;
    this.#pausedAt = performance.now();
    this.#timers.forEach(clearTimeout);
  }

  /** The sound goes on where it waited. */
  resume() {
    if (this.#pausedAt === null) return;
    const waited = performance.now() - this.#pausedAt;
    this.#due = this.#due.map((due) => (due > this.#pausedAt ? due + waited : due));
    this.#pausedAt = null;
    this.#light();
  }

  #light() {
    this.#timers = this.#due.map((due, i) =>
      setTimeout(() => this.#words[i]?.classList.add("said"), Math.max(0, due - performance.now())),
    );
  }

  /** The sound has ended by itself. */
  finish() {
    // A sentence that was cut off stays cut.
    if ("cut" in this.#element.dataset) return;
    this.#words.forEach((span) => span.classList.add("said"));
    clearTimeout(this.#hide);
    this.#hide = setTimeout(() => this.clear(), this.#lingerMs);
  }

  /** The sound was cut off: what was said stays a moment, and what was not is gone at once. */
  cut() {
    if ("cut" in this.#element.dataset) return undefined;
    this.#timers.forEach(clearTimeout);
    const said = this.#words.filter((span) => span.classList.contains("said"));
    if (!said.length) return this.clear();
    for (const span of this.#words) if (!said.includes(span)) span.remove();
    said.at(-1).textContent = broken(said.at(-1).textContent);
    this.#words = said;
    this.#element.dataset.cut = "";
    clearTimeout(this.#hide);
    this.#hide = setTimeout(() => this.clear(), this.#lingerMs);
    return undefined;
  }

  /** Gone at once. */
  clear() {
    delete this.#element.dataset.cut;
    clearTimeout(this.#hide);
    this.#timers.forEach(clearTimeout);
    this.#timers = [];
    this.#due = [];
    this.#pausedAt = null;
    this.#words = [];
    this.#element.hidden = true;
    this.#element.replaceChildren();
  }
}

/** Words that were cut off, as they are written down. */
export function broken(text) {
  return `${text.trimEnd().replace(/[,;:，、；：]$/, "")} —`;
}

/**
 * Cut a sentence at its words, keeping every sign between them.
 * @returns {Array<{slice: string, start_ms?: number}>} one piece a word; one for all when the voice tells no times
 */
export function split(text, words) {
  const pieces = [];
  let from = 0;
  for (const word of words) {
    const at = text.indexOf(word.text, from);
    // A voice may name a word otherwise than it is written ("3" as "three"): it stays with its neighbour.
    if (at < 0) continue;
    if (pieces.length) pieces.at(-1).slice = text.slice(pieces.at(-1).from, at);
    pieces.push({ from: pieces.length ? at : 0, start_ms: word.start_ms });
    from = at + word.text.length;
  }
  if (!pieces.length) return [{ slice: text }];
  pieces.at(-1).slice = text.slice(pieces.at(-1).from);
  return pieces;
}
