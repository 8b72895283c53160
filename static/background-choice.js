/**
 * The setting of the background: as filmed, out of focus, a colour, a picture from this device, or nothing at all.
 *
 * Place in the flow: beside `panel.js`; tells the `TalkingHead`, which does the work. Remembered, except for the picture.
 */

import { MODES, canCompose } from "./background.js";
import { recall, remember } from "./preferences.js";
import { Problem } from "./protocol.js";

const COLOUR = "#2f4a44";
/** Larger than any screen; what is larger still would only fill the memory of the graphics card. */
const IMAGE_SIDE = 2048;

const $ = (id) => document.getElementById(id);

export class BackgroundChoice {
  #head;
  #failed;
  #image = null;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {(error: Error) => void} failed is told what went wrong with a picture
   */
  constructor(head, failed) {
    this.#head = head;
    this.#failed = failed;
    $("background-box").hidden = !canCompose();
    $("background-colour").value = /^#[0-9a-f]{6}$/.test(recall("background-colour") ?? "") ? recall("background-colour") : COLOUR;
    const mode = recall("background");
    $("background").value = MODES.includes(mode) && mode !== "image" ? mode : "filmed";
    $("background").addEventListener("change", () => this.#choose());
    $("background-colour").addEventListener("input", () => this.#choose());
    $("background-file-button").addEventListener("click", () => $("background-file").click());
    $("background-file").addEventListener("change", (e) => e.target.files[0] && this.#take(e.target.files[0]));
    head.addEventListener("error", ({ detail }) => detail.code === "matte_failed" && this.#show("filmed"));
    this.#choose();
  }

  #choose() {
    const mode = $("background").value;
    if (mode === "image" && !this.#image) {
      this.#show(mode);
      return $("background-file").click();
    }
    const colour = $("background-colour").value;
    const done = this.#head.setBackground({ mode, colour, image: this.#image });
    remember("background", mode === "filmed" ? null : mode);
    remember("background-colour", colour);
    return this.#show(done ? mode : "filmed");
  }

  #show(mode) {
    $("background").value = mode;
    $("background-colour-label").hidden = mode !== "colour";
    $("background-file-button").hidden = mode !== "image";
    // The page's own paper is what a transparent portrait stands before.
    document.documentElement.dataset.background = mode;
  }

  async #take(file) {
    $("background-file").value = "";
    try {
      const whole = await createImageBitmap(file);
      const scale = Math.min(1, IMAGE_SIDE / Math.max(whole.width, whole.height));
      const size = { resizeWidth: Math.round(whole.width * scale), resizeHeight: Math.round(whole.height * scale), resizeQuality: "high" };
      this.#image = scale < 1 ? await createImageBitmap(whole, size) : whole;
    } catch {
      this.#failed(new Problem("image_unreadable", "That is not a picture this browser can read."));
      return this.#image ? undefined : this.#show(this.#head.background);
    }
    $("background").value = "image";
    return this.#choose();
  }
}
