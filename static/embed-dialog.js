/**
 * The dialogue that shows what to paste into another page.
 *
 * Place in the flow: opened from the settings; `app.js` says whose portrait. The server names its script and the script's
 * integrity hash; the rest is this page's own address.
 */

import { t } from "./language.js";

const $ = (id) => document.getElementById(id);

/** How long the button says that it has copied. */
const COPIED_MS = 2000;

export class EmbedDialog {
  #head;
  #face;
  #script = null;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {() => {name: string, title?: string}|undefined} face whose portrait it is to be
   */
  constructor(head, face) {
    this.#head = head;
    this.#face = face;
    $("embed-open").addEventListener("click", () => this.#open());
    $("embed-close").addEventListener("click", () => $("embed").close());
    // The button that opened it is in a panel that closes under the dialogue.
    $("embed").addEventListener("close", () => $("settings-button").focus());
    $("embed-kinds").addEventListener("change", () => this.#show());
    $("embed-copy").addEventListener("click", () => this.#copy());
  }

  async #open() {
    $("embed").showModal();
    try {
      this.#script ??= await this.#head.api.snippet();
      this.#show();
    } catch (error) {
      $("embed-code").textContent = error.message;
    }
  }

  #show() {
    const kind = new FormData($("embed-kinds")).get("kind");
    const closed = this.#head.config.access === "closed";
    $("embed-code").textContent = snippet(kind, this.#face() ?? {}, this.#script, this.#head.api, closed);
    const avatar = this.#face()?.name ?? "AVATAR";
    $("embed-command").textContent = `python -m server embeds add ${avatar} --origin https://example.org`;
    $("embed-key").hidden = !closed;
    $("embed-here").hidden = closed;
  }

  async #copy() {
    const copied = await navigator.clipboard?.writeText($("embed-code").textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren($("embed-code"));
    $("embed-copy").textContent = t(copied ? "copied" : "selected");
    setTimeout(() => ($("embed-copy").textContent = t("copy")), COPIED_MS);
  }
}

/**
 * @param {"element"|"bubble"|"frame"} kind
 * @param {{name?: string, title?: string}} face
 * @param {{script: string, integrity: string, page: string}} served what the server has for other pages
 * @param {import("./protocol.js").Api} api
 * @param {boolean} needsKey
 */
export function snippet(kind, { name, title = name }, { script, integrity, page }, api, needsKey) {
  const attributes = Object.entries({ avatar: name, key: needsKey ? "YOUR-EMBED-KEY" : undefined }).filter(([, value]) => value);
  if (kind === "frame") {
    const address = `${api.url(page)}?${new URLSearchParams(attributes)}`;
    return tag("iframe", [
      ...[["src", address], ["title", `Live portrait of ${title}`]],
      ...[["allow", "microphone; autoplay; fullscreen"], ["referrerpolicy", "origin"], ["width", 360], ["height", 480], ["style", "border: 0"]],
    ]);
  }
  const loader = tag("script", [["src", api.url(script)], ["integrity", integrity], ["crossorigin", "anonymous"], ["async"]]);
  return `${loader}\n${tag("talking-head", kind === "bubble" ? [...attributes, ["bubble"]] : attributes)}`;
}

function tag(name, attributes) {
  const written = attributes.map(([key, value]) => (value === undefined ? ` ${key}` : ` ${key}="${escaped(String(value))}"`));
  return `<${name}${written.join("")}></${name}>`;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
