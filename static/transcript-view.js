/**
 * The transcript in the settings: to read, to copy, to save as a file.
 *
 * Place in the flow: shows a `Transcript`; knows no server.
 */

import { broken } from "./captions.js";
import { t } from "./language.js";
import { clock } from "./transcript.js";

/** How long a button says that it did its work. */
const DONE_MS = 1600;

const $ = (id) => document.getElementById(id);

export class TranscriptView {
  #transcript;
  #title;

  /**
   * @param {import("./transcript.js").Transcript} transcript
   * @param {() => string} title for whom the file is named
   */
  constructor(transcript, title) {
    this.#transcript = transcript;
    this.#title = title;
    transcript.addEventListener("change", () => this.#open && this.#draw());
    $("settings").addEventListener("toggle", () => this.#draw());
    $("transcript-copy").addEventListener("click", (e) => this.#copy(e.currentTarget));
    $("transcript-save").addEventListener("click", () => this.#save());
    $("transcript-clear").addEventListener("click", () => transcript.clear());
  }

  get #open() {
    return $("settings").matches(":popover-open");
  }

  #draw() {
    const list = $("transcript");
    const { lines } = this.#transcript;
    $("transcript-tools").hidden = list.hidden = !lines.length;
    $("transcript-empty").hidden = lines.length > 0;
    // Who has scrolled back wants to read there.
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    list.replaceChildren(...lines.map(row));
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  async #copy(button) {
    let words = "copied";
    try {
      await navigator.clipboard.writeText(String(this.#transcript));
    } catch {
      // Without a secure page there is no clipboard; what is selected can be copied by hand.
      getSelection().selectAllChildren($("transcript"));
      words = "selected";
    }
    button.textContent = t(words);
    setTimeout(() => (button.textContent = t("copy")), DONE_MS);
  }

  #save() {
    const url = URL.createObjectURL(new Blob([String(this.#transcript)], { type: "text/plain;charset=utf-8" }));
    const now = new Date();
    const day = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, "0")}-${String(now.getDate()).padStart(2, "0")}`;
    const who = this.#title().toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
    const link = Object.assign(document.createElement("a"), { href: url, download: `${who}-${day}-${clock(now).replaceAll(":", "")}.txt` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

function row({ who, name, text, at, cut }) {
  const item = document.createElement("li");
  item.dataset.who = who;
  const head = document.createElement("b");
  head.textContent = name;
  const time = Object.assign(document.createElement("time"), { textContent: clock(at).slice(0, 5), dateTime: at.toISOString() });
  const words = document.createElement("span");
  words.textContent = cut ? broken(text) : text;
  if (cut) words.title = t("transcript.cut");
  item.append(head, time, words);
  return item;
}
