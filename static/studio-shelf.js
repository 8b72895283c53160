/**
 * The shelf: avatars that were made here, to be seen, used and deleted.
 *
 * Place in the flow: `studio.js` refreshes it; nothing depends on it. Titles go in as text, never as markup.
 */

import { made, poster, remove } from "./studio-api.js";

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export class Shelf {
  #show;
  #fail;
  #withKey;

  /**
   * @param {(avatar: {name: string, title: string}) => void} show plays an avatar's preview
   * @param {(error: Error) => void} fail tells that something did not work
   * @param {(action: () => Promise<object>) => Promise<object>} withKey does something that may want an API key
   */
  constructor(show, fail, withKey) {
    this.#withKey = withKey;
    this.#show = show;
    this.#fail = fail;
  }

  /** Read the list again. @param {number} limit how many there may be */
  async refresh(limit) {
    const avatars = await made();
    $("shelf").hidden = avatars.length === 0;
    $("shelf-count").textContent = `${avatars.length} of ${limit}`;
    $("shelf-list").replaceChildren(...avatars.map((avatar) => this.#card(avatar, limit)));
  }

  #card(avatar, limit) {
    const look = element("button", { className: "look", type: "button", ariaLabel: `Preview of ${avatar.title}` });
    look.append(element("img", { src: poster(avatar.name), alt: "", loading: "lazy" }), icon("i-play"));
    look.addEventListener("click", () => this.#show(avatar));
    const bin = element("button", { className: "icon", type: "button", ariaLabel: `Delete ${avatar.title}`, title: "Delete" }, icon("i-bin"));
    bin.addEventListener("click", () => this.#delete(avatar, limit));
    const about = avatar.synthetic ? "Nobody real" : avatar.consent;
    const words = element(
      "div",
      { className: "words" },
      element("strong", { textContent: avatar.title, title: avatar.title }),
      element("span", { className: "fine", textContent: about, title: about }),
      element("a", { href: `./?avatar=${encodeURIComponent(avatar.name)}`, textContent: "Talk", ariaLabel: `Talk with ${avatar.title}` }),
    );
    return element("li", { className: "card" }, look, element("div", { className: "line" }, words, bin));
  }

  async #delete(avatar, limit) {
    $("ask-title").textContent = `Delete ${avatar.title}?`;
    $("ask").returnValue = "no";
    $("ask").showModal();
    await new Promise((resolve) => $("ask").addEventListener("close", resolve, { once: true }));
    if ($("ask").returnValue !== "yes") return;
    try {
      await this.#withKey(() => remove(avatar.name));
    } catch (error) {
      this.#fail(error);
    }
    await this.refresh(limit).catch(this.#fail);
    dispatchEvent(new CustomEvent("avatar-deleted", { detail: avatar.name }));
  }
}
