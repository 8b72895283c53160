/**
 * What was said in this conversation, by both, as this page heard it.
 *
 * Place in the flow: fed by `app.js` with words of the person, captions of the avatar and interruptions; shown, copied and saved in the settings.
 *
 * Invariants: what was never heard is not in it: an answer that was interrupted ends where it was cut; it lives in this page only, and is bounded.
 */

import { broken } from "./captions.js";
import { t } from "./language.js";

const LINES_KEPT = 2000;

export class Transcript extends EventTarget {
  #lines = [];

  /** @returns {Array<{who: "you"|"avatar", name: string, text: string, at: Date, cut: boolean}>} oldest first */
  get lines() {
    return this.#lines;
  }

  /** The person said, or wrote, something. */
  you(text) {
    this.#add({ who: "you", name: t("transcript.you"), text, cut: false });
  }

  /**
   * The avatar begins a sentence. Sentences of one utterance make one line.
   * @param {string} name of the avatar
   * @param {{utterance_id: number, text: string, start_ms?: number, words?: Array<{text: string, start_ms: number}>}} caption
   */
  avatar(name, { utterance_id: utterance, text, start_ms: startMs = 0, words = [] }) {
    if (!text) return;
    const sentence = { text, startMs, words };
    const line = this.#utterance(utterance);
    if (!line) return this.#add({ who: "avatar", name, text, cut: false, utterance, sentences: [sentence] });
    line.sentences.push(sentence);
    line.text = join(line.sentences.map((s) => s.text));
    this.#changed();
  }

  /**
   * The avatar was cut off. The server tells what was heard as text, of an answer, or as a time, of anything else.
   * @param {{utterance_id: number, played_text?: string, played_ms?: number}} interruption
   */
  cut({ utterance_id: utterance, played_text: playedText, played_ms: playedMs }) {
    const line = this.#utterance(utterance);
    if (!line) return;
    if (playedText === undefined && (playedMs === undefined || line.cut)) return;
    line.text = playedText ?? join(line.sentences.map((s) => upTo(s, playedMs)).filter(Boolean));
    line.cut = true;
    if (!line.text) this.#lines.splice(this.#lines.indexOf(line), 1);
    this.#changed();
  }

  /** What comes now belongs to another session, whose utterances are counted anew. */
  seal() {
    for (const line of this.#lines) line.utterance = null;
  }

  clear() {
    this.#lines = [];
    this.#changed();
  }

  /** All of it, a line each, for people and for files. */
  toString() {
    return this.#lines.map(({ name, text, at, cut }) => `[${clock(at)}] ${name}: ${cut ? broken(text) : text}\n`).join("");
  }

  #utterance(id) {
    return this.#lines.findLast((line) => line.who === "avatar" && line.utterance === id);
  }

  #add(line) {
    this.#lines.push({ ...line, at: new Date() });
    if (this.#lines.length > LINES_KEPT) this.#lines.shift();
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The time of day, to the second. */
export function clock(date) {
  return date.toTimeString().slice(0, 8);
}

/** The part of a sentence that had begun to sound by a time of its utterance. */
function upTo({ text, startMs, words }, playedMs) {
  if (playedMs <= startMs) return "";
  let said = 0;
  for (const word of words) {
    if (word.start_ms >= playedMs) return text.slice(0, said);
    const at = text.indexOf(word.text, said);
    if (at >= 0) said = at + word.text.length;
  }
  return text;
}

/** Sentences after one another; Chinese and Japanese ones need no space between them. */
function join(sentences) {
  return sentences.reduce((all, text) => (all && !/[。！？」』]$/.test(all) ? `${all} ${text}` : all + text), "");
}
