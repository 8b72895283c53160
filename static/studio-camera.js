/**
 * The camera as the studio uses it: a mirrored view finder, a photo, a short film without sound.
 *
 * Place in the flow: `studio.js` opens and closes it; what it makes is a `Blob` like a chosen file.
 *
 * Invariants: the camera's light is out whenever the finder is not shown, however late the browser lets the page have it;
 * pictures are never mirrored, only the finder.
 */

import { Problem } from "./protocol.js";

const FORMATS = ["video/mp4;codecs=avc1.42E01F", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];
const BITS_PER_S = 6_000_000;

const WORDS = {
  NotAllowedError: ["camera_denied", "The browser does not let this page use the camera. Allow it beside the address, or choose a file."],
  SecurityError: ["camera_denied", "This page may not use the camera here. Choose a file instead."],
  NotFoundError: ["camera_missing", "There is no camera. Choose a file instead."],
  OverconstrainedError: ["camera_missing", "There is no camera that fits. Choose a file instead."],
};
const LOST = ["camera_lost", "The camera went away. Plug it in and try again, or choose a file."];
const BUSY = ["camera_busy", "Another program holds the camera. Close that program and try again, or choose a file."];

export class Camera {
  #finder;
  #stream = null;
  #recorder = null;
  #lost;
  /** Counts what was asked for, and that it was let go: who asks may be answered much later. */
  #asked = 0;

  /**
   * @param {HTMLVideoElement} finder where the picture is shown
   * @param {(error: Problem) => void} lost is told `camera_lost` when the camera goes away by itself
   */
  constructor(finder, lost) {
    this.#finder = finder;
    this.#lost = lost;
  }

  get recording() {
    return this.#recorder !== null;
  }

  /** Whether this browser can film. */
  static get films() {
    return FORMATS.some((format) => globalThis.MediaRecorder?.isTypeSupported(format));
  }

  /**
   * Ask for the camera and show its picture.
   * @returns {Promise<boolean>} false when it was let go meanwhile, or asked for again
   * @throws {Problem} `camera_denied`, `camera_missing`, `camera_busy`
   */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Problem("camera_insecure", "Cameras need a secure page: open it through https:// or on http://localhost, or choose a file.");
    const asked = (this.#asked += 1);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: 1280 }, height: { ideal: 960 }, frameRate: { ideal: 30 }, facingMode: "user" },
      });
    } catch (error) {
      if (asked !== this.#asked) return false;
      throw new Problem(...(WORDS[error.name] ?? BUSY));
    }
    if (asked !== this.#asked) {
      stream.getTracks().forEach((track) => track.stop());
      return false;
    }
    this.close();
    this.#stream = stream;
    for (const track of stream.getTracks()) {
      track.addEventListener("ended", () => {
        if (this.#stream !== stream) return;
        this.close();
        this.#lost(new Problem(...LOST));
      });
    }
    this.#finder.srcObject = stream;
    await this.#finder.play().catch(() => {});
    return this.#stream === stream;
  }

  /** Let the camera go, and the one that is asked for; a film that is being made is thrown away. */
  close() {
    this.#asked += 1;
    const recorder = this.#recorder;
    this.#recorder = null;
    if (recorder && recorder.state !== "inactive") recorder.stop();
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.#finder.srcObject = null;
  }

  /** The picture of this moment. @returns {Promise<Blob>} jpeg */
  photo() {
    const canvas = document.createElement("canvas");
    canvas.width = this.#finder.videoWidth;
    canvas.height = this.#finder.videoHeight;
    canvas.getContext("2d").drawImage(this.#finder, 0, 0);
    return new Promise((resolve, reject) => {
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Problem(...BUSY))), "image/jpeg", 0.95);
    });
  }

  /**
   * Film.
   * @param {number} seconds
   * @param {(left: number) => void} tick told the whole seconds left
   * @returns {Promise<Blob|null>} null when the camera was closed meanwhile
   * @throws {Problem} `camera_lost`
   */
  async film(seconds, tick) {
    const format = FORMATS.find((name) => MediaRecorder.isTypeSupported(name));
    let recorder;
    try {
      recorder = new MediaRecorder(this.#stream, { mimeType: format, videoBitsPerSecond: BITS_PER_S });
      recorder.start();
    } catch {
      throw new Problem(...LOST);
    }
    const parts = [];
    this.#recorder = recorder;
    return new Promise((resolve) => {
      let left = seconds;
      tick(left);
      const timer = setInterval(() => {
        tick(--left);
        if (left <= 0) recorder.stop();
      }, 1000);
      recorder.ondataavailable = (e) => e.data.size && parts.push(e.data);
      recorder.onstop = () => {
        clearInterval(timer);
        const kept = this.#recorder === recorder;
        this.#recorder = null;
        resolve(kept && parts.length ? new Blob(parts, { type: format.split(";")[0] }) : null);
      };
    });
  }
}
