/**
 * The faces to choose from, each in a small moving picture; and what the chosen one can do.
 *
 * Place in the flow: part of the settings; tells `app.js` which face is wanted and a `TalkingHead` which movement.
 *
 * Moving pictures are fetched when they are first seen, and stand still for whoever wants less motion.
 */

import { has, language, t } from "./language.js";

const MOTION = "(prefers-reduced-motion: no-preference)";

const $ = (id) => document.getElementById(id);

export class Faces {
  #head;
  #choose;
  #clips = [];

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {(name: string) => void} choose
   */
  constructor(head, choose) {
    this.#head = head;
    this.#choose = choose;
    for (const [event, on] of [["action_started", true], ["action_ended", false]])
      head.addEventListener(event, ({ detail }) => this.#mark(detail.name, on));
    head.addEventListener("state", () => this.#mark());
    language.addEventListener("change", () => this.showMoves(this.#clips));
  }

  /** Faces to choose from; nothing is shown while there is no choice. */
  show(avatars, current) {
    $("faces").hidden = avatars.length < 2;
    const listed = [...$("faces-list").querySelectorAll("input")];
    if (listed.map(({ value }) => value).join() === avatars.map(({ name }) => name).join()) {
      for (const input of listed) input.checked = input.value === current;
      return;
    }
    $("faces-list").replaceChildren(...avatars.map((face) => this.#tile(face, face.name === current)));
  }

  #tile({ name, title }, checked) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "face", value: name, checked });
    input.addEventListener("change", () => this.#choose(name));
    const picture = document.createElement("picture");
    const moving = Object.assign(document.createElement("source"), { media: MOTION, type: "image/webp", srcset: this.#head.api.thumbnail(name) });
    const still = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", src: this.#head.api.poster(name) });
    still.addEventListener("error", () => moving.remove(), { once: true });
    picture.append(moving, still);
    label.append(input, picture, title ?? name);
    return label;
  }

  /** Movements the face can be asked for; listening is up to the microphone. */
  showMoves(clips) {
    this.#clips = clips;
    const moves = clips.filter(({ name }) => name !== "listening");
    $("moves").hidden = !moves.length;
    $("moves-list").replaceChildren(...moves.map(({ name }) => this.#move(name)));
  }

  #move(name) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "pill toggle" });
    button.dataset.name = name;
    button.textContent = has(`move.${name}`) ? t(`move.${name}`) : name[0].toUpperCase() + name.slice(1).replace(/[-_]/g, " ");
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => (button.getAttribute("aria-pressed") === "true" ? this.#head.stopAction() : this.#head.act(name)));
    return button;
  }

  /** Show which movement plays; without a name, that none does. */
  #mark(name, on = false) {
    for (const button of $("moves-list").children)
      if (!name || button.dataset.name === name) button.setAttribute("aria-pressed", String(on));
  }
}
