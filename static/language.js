/**
 * The language of the page: chosen once, changed at will, applied to the document.
 *
 * Place in the flow: below all that has words; looks them up in `messages.js`.
 *
 * Elements say what they mean: `data-t` is their text, `data-t-label` their accessible name (and tooltip, where they have a `title`),
 * `data-t-placeholder` what an empty box says. What a module writes by itself it writes again when `language` tells `change`.
 *
 * The choice: `?lang=` in the address, then what was chosen here before, then the browser's languages, then English.
 */

import { LANGUAGES, MESSAGES } from "./messages.js";
import { recall, remember } from "./preferences.js";

const CODES = Object.keys(LANGUAGES);

/** `zh-Hans-CN` is Chinese; null for a language that the page does not speak. */
function spoken(tag) {
  const code = String(tag ?? "").toLowerCase().split("-")[0];
  return CODES.includes(code) ? code : null;
}

class Language extends EventTarget {
  #code;

  constructor() {
    super();
    const wanted = [new URLSearchParams(location.search).get("lang"), recall("language"), ...(navigator.languages ?? [navigator.language])];
    this.#code = wanted.map(spoken).find(Boolean) ?? "en";
  }

  get code() {
    return this.#code;
  }

  /** Choose another one, now and for visits to come. */
  set code(code) {
    if (!spoken(code) || code === this.#code) return;
    this.#code = code;
    remember("language", code);
    translate();
    this.dispatchEvent(new Event("change"));
  }
}

export const language = new Language();

/** Whether there are words for a key. */
export function has(key) {
  return key in MESSAGES;
}

/**
 * Words, in the page's language.
 * @param {string} key of the table
 * @param {Record<string, string|number>} [values] what replaces `{name}` and the like
 */
export function t(key, values = {}) {
  const words = MESSAGES[key]?.[CODES.indexOf(language.code)] ?? key;
  return words.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all)).trim();
}

/** Write everything that the document itself says. */
export function translate(root = document) {
  document.documentElement.lang = language.code === "zh" ? "zh-CN" : language.code;
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) {
    const words = t(element.dataset.tLabel);
    if (element.tagName === "OPTGROUP") element.label = words;
    else if (element.tagName === "ABBR") element.title = words;
    else element.setAttribute("aria-label", words);
    if (element.hasAttribute("title")) element.title = words;
  }
  for (const element of root.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
}
