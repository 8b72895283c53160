/**
 * The camera as the studio uses it: a mirrored view finder, a photo, a short film without sound.
 *
 * Place in the flow: `studio.js` opens and closes it; what it makes is a `Blob` like a chosen file.
 *
 * Invariants: the camera's light is out whenever the finder is not shown; pictures are never mirrored, only the finder.
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
const BUSY = ["camera_busy", "Another program holds the camera. Close that program and try again, or choose a file."];

export class Camera {
  #finder;
  #stream = null;
  #recorder = null;

  /** @param {HTMLVideoElement} finder where the picture is shown */
  constructor(finder) {
    this.#finder = finder;
  }

  get recording() {
    return this.#recorder !== null;
  }

  /** Whether this browser can film. */
  static get films() {
    return FORMATS.some((format) => globalThis.MediaRecorder?.isTypeSupported(format));
  }

  /** Ask for the camera and show its picture. @throws {Problem} `camera_denied`, `camera_missing`, `camera_busy` */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Problem("camera_insecure", "Cameras need a secure page: open it through https:// or on http://localhost, or choose a file.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: 1280 }, height: { ideal: 960 }, frameRate: { ideal: 30 }, facingMode: "user" },
      });
    } catch (error) {
      throw new Problem(...(WORDS[error.name] ?? BUSY));
    }
    this.close();
    this.#stream = stream;
    this.#finder.srcObject = stream;
    await this.#finder.play().catch(() => {});
  }

  /** Let the camera go; a film that is being made is thrown away. */
  close() {
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
   */
  film(seconds, tick) {
    const format = FORMATS.find((name) => MediaRecorder.isTypeSupported(name));
    const recorder = new MediaRecorder(this.#stream, { mimeType: format, videoBitsPerSecond: BITS_PER_S });
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
        resolve(kept ? new Blob(parts, { type: format.split(";")[0] }) : null);
      };
      recorder.start();
    });
  }
}
