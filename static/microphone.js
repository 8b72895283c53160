/**
 * The person's microphone: asked for once, muted in place, measured for the ring around its button.
 *
 * Place in the flow: beside `peer.js`; `app.js` joins the two. Sound only goes in here: what people hear is played by
 * the video element, never by WebAudio, because browsers cancel the echo of peer connections only.
 *
 * Invariants: at most one track is open; what was asked for is not opened any more once somebody has let it go or asked
 * for another; a failure is a `Problem` whose code names its cause; muting keeps the track, so that unmuting is instant and asks nothing.
 *
 * Events: `level` {level: 0..1} about thirty times a second while open, `lost` when the device goes away,
 * `devices` when some were plugged in or out.
 */

import { problem } from "./protocol.js";

/** Quieter than this shows as nothing, louder than the other as a full ring, dBFS. */
const FLOOR_DB = -55;
const CEILING_DB = -12;
const LEVEL_INTERVAL_MS = 33;

const CODES = {
  NotAllowedError: "microphone_denied",
  SecurityError: "microphone_policy",
  NotFoundError: "microphone_missing",
  OverconstrainedError: "microphone_missing",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};

export class Microphone extends EventTarget {
  #stream = null;
  #context = null;
  #timer = 0;
  #muted = false;
  /** Counts what was asked for, and that it was let go: who asks may be answered much later. */
  #asked = 0;

  /** @param {{raw?: boolean}} options raw: none of the browser's processing, for measurements */
  constructor({ raw = false } = {}) {
    super();
    this.raw = raw;
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.dispatchEvent(new CustomEvent("devices")));
  }

  /** The open track, or null. */
  get track() {
    return this.#stream?.getAudioTracks()[0] ?? null;
  }

  get open() {
    return this.track !== null;
  }

  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  /**
   * Open a microphone, in place of the one that is open.
   *
   * @param {string} [deviceId] one of `devices()`; the system's choice when left out
   * @returns {Promise<MediaStreamTrack|null>} null when it was let go meanwhile, or another one was asked for
   * @throws {import("./protocol.js").Problem} `microphone_denied`, `_missing`, `_busy`, `_insecure` or `_policy`
   */
  async start(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) throw problem("microphone_insecure");
    if (document.featurePolicy?.allowsFeature?.("microphone") === false) throw problem("microphone_policy");
    const asked = (this.#asked += 1);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          echoCancellation: !this.raw,
          noiseSuppression: !this.raw,
          autoGainControl: !this.raw,
          channelCount: 1,
          ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
        },
      });
    } catch (error) {
      if (asked !== this.#asked) return null;
      throw problem(CODES[error.name] ?? "microphone_busy");
    }
    if (asked !== this.#asked) {
      stream.getTracks().forEach((track) => track.stop());
      return null;
    }
    this.#release();
    this.#stream = stream;
    this.muted = this.#muted;
    this.track.addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.#release();
      this.dispatchEvent(new CustomEvent("lost"));
    });
    this.#measure(stream);
    return this.track;
  }

  /** Let the device go, and the one that is asked for. */
  stop() {
    this.#asked += 1;
    this.#release();
  }

  #release() {
    clearInterval(this.#timer);
    this.#context?.close();
    this.#context = null;
    const stream = this.#stream;
    this.#stream = null;
    stream?.getTracks().forEach((track) => track.stop());
  }

  /**
   * Microphones to choose from. Before permission browsers tell neither names nor ids: the list is empty then.
   * @returns {Promise<Array<{id: string, label: string, current: boolean}>>}
   */
  async devices() {
    const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
    const current = this.track?.getSettings().deviceId;
    return all
      .filter((d) => d.kind === "audioinput" && d.deviceId && d.label)
      .map((d) => ({ id: d.deviceId, label: d.label, current: d.deviceId === current }));
  }

  /** Analyse the track without playing it. */
  #measure(stream) {
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    this.#context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.#timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      let energy = 0;
      for (const x of samples) energy += x * x;
      const db = 10 * Math.log10(energy / samples.length + 1e-12);
      const level = Math.min(1, Math.max(0, (db - FLOOR_DB) / (CEILING_DB - FLOOR_DB)));
      this.dispatchEvent(new CustomEvent("level", { detail: { level } }));
    }, LEVEL_INTERVAL_MS);
  }
}
