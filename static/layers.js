/**
 * What lies over one another in the portrait: the poster, the last picture that was seen, the live video, the person before another background.
 *
 * Place in the flow: inside `<talking-head>`, which says when a stream begins and ends.
 *
 * Invariant: the picture is never black: the video shows itself only once it has a picture, and leaves its last one behind.
 */

import { Background } from "./background.js";

export class Layers {
  #host;
  #still = document.createElement("canvas");
  #address = "";
  poster = new Image();
  video = document.createElement("video");

  /**
   * @param {HTMLElement} host whose class `showing` makes the video visible
   * @param {(ratio: number) => void} shape is told width / height
   * @param {() => void} lost is told when backgrounds cannot be changed any more
   */
  constructor(host, shape, lost) {
    this.#host = host;
    const { poster, video } = this;
    poster.alt = "";
    poster.className = "poster";
    poster.onload = () => shape(poster.naturalWidth / poster.naturalHeight);
    poster.onerror = () => poster.removeAttribute("src");
    this.#still.className = "still";
    this.#still.hidden = true;
    video.className = "live";
    video.autoplay = video.playsInline = true;
    video.muted = true;
    video.disablePictureInPicture = true;
    this.background = new Background(host, video, poster, lost);
    video.addEventListener("resize", () => video.videoWidth && shape(this.background.ratio));
  }

  /** The still shown until the first picture: its URL. Before nothing, it is the one that is cut out. */
  set address(url) {
    this.#address = url;
    const shown = this.background.mode === "transparent" ? url.replace(/poster\.jpg$/, "cutout.webp") : url;
    if (shown !== this.poster.src) this.poster.src = shown;
  }

  /** See `Background`. */
  choose(choice) {
    const possible = this.background.choose(choice);
    if (this.#address) this.address = this.#address;
    return possible;
  }

  /** Put them into the host. */
  mount() {
    if (!this.#host.firstChild) this.#host.append(this.poster, this.#still, this.video, this.background.canvas);
  }

  /** Call back once the first picture of a stream is there; the video shows from then on. */
  reveal(stream, arrived) {
    const { video } = this;
    const show = () => {
      if (video.srcObject !== stream) return;
      this.#host.classList.add("showing");
      arrived();
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(show);
    else video.addEventListener("playing", show, { once: true });
  }

  /**
   * Keep the last picture on the screen while there is no stream.
   * @param {boolean} same it is still the same face; another one begins with its poster
   */
  freeze(same) {
    const { videoWidth: width } = this.video;
    const height = Math.round(width / this.background.ratio);
    if (!same) {
      this.#still.hidden = true;
      this.#host.classList.remove("packed");
    }
    else if (width && this.#host.classList.contains("showing")) {
      Object.assign(this.#still, { width, height, hidden: false });
      // The colour of a packed picture is its upper half.
      const shown = this.background.draw() ? this.background.canvas : this.video;
      this.#still.getContext("2d").drawImage(shown, 0, 0, width, height, 0, 0, width, height);
    }
    this.#host.classList.remove("showing");
    this.video.srcObject = null;
  }
}
