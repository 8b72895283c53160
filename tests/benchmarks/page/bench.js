/**
 * The page that measures: the product's own `<talking-head>` with ears and an eye on it, driven from Python.
 *
 * Place in the flow: live.py -> `window.bench` -> talking-head.js (the product) and recorders.js -> back to live.py.
 * It is answered by the browser driver at an address of the server that is measured, so it is same-origin with the
 * product's modules; the server neither knows nor ships it.
 */

import { Calibration } from "./calibration.js";
import { Ear, Eye } from "./recorders.js";

const CONNECT_LIMIT_S = 15;

const connections = [];
const Native = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Native {
  constructor(...options) {
    super(...options);
    connections.push(this);
  }
};

const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1000));

class Bench {
  head = null;
  microphone = null;
  voice = null;
  eye = null;
  calibration = null;

  /** Connect the product's element; returns once a picture has been shown. */
  async connect() {
    await import("/talking-head.js");
    this.head = document.createElement("talking-head");
    this.head.setAttribute("server", "/");
    document.body.append(this.head);
    const shown = new Promise((resolve) => this.head.addEventListener("firstframe", resolve, { once: true }));
    const refused = new Promise((_, reject) =>
      this.head.addEventListener("state", ({ detail }) => detail.state === "stopped" && reject(detail.reason)),
    );
    this.head.connect();
    const late = seconds(CONNECT_LIMIT_S).then(() => {
      throw new Error(`no picture within ${CONNECT_LIMIT_S} s`);
    });
    await Promise.race([shown, refused, late]);
    this.head.muted = false;
    return { width: this.head.video.videoWidth, height: this.head.video.videoHeight };
  }

  /** Listen to what arrives and look at one region of it. */
  observe(region) {
    this.voice?.stop();
    this.eye?.stop();
    this.voice = new Ear(this.head.video.srcObject.getAudioTracks()[0]);
    this.eye = new Eye(this.head.video, region);
  }

  /** Open the microphone, untouched by the browser's processing, and send it; `mirror` has it spoken back. */
  async speak({ mirror }) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
    });
    const [track] = stream.getAudioTracks();
    this.microphone = new Ear(track);
    await this.head.setMicrophone(track);
    this.head.mirror(mirror);
  }

  /** Flash and beep inside this browser, in place of a server. */
  async calibrate({ throughWebrtc, ...region }) {
    const video = document.createElement("video");
    video.autoplay = video.playsInline = true;
    document.body.append(video);
    this.calibration = new Calibration(video);
    const stream = await this.calibration.start(throughWebrtc);
    this.voice = new Ear(stream.getAudioTracks()[0]);
    this.eye = new Eye(video, region);
  }

  /** Say something, stop it in mid-sound and hand back when it was stopped. `level` is what counts as sound. */
  async interruptAfter({ text, sound, speakMs, level, quietMs, timeoutMs }) {
    const started = performance.now();
    const limit = started + timeoutMs;
    if (sound) await this.head.play(await (await fetch(sound)).blob());
    else await this.head.say(text);
    while (this.voice.level < level) {
      if (performance.now() > limit) return { started, failed: "no sound came" };
      await seconds(0.004);
    }
    const heard = performance.now();
    await seconds(speakMs / 1000);
    // Stopped in the middle of sound, never in a pause, where silence would prove nothing.
    while (this.voice.level < level) {
      if (performance.now() > limit) return { started, heard, failed: "the sound ended before it was stopped" };
      await seconds(0.001);
    }
    const stopped = performance.now();
    // The server's own path: `head.interrupt()` also mutes the page at once, which would leave nothing to measure.
    this.head.api.interrupt(this.head.session).catch(() => {});
    await seconds(quietMs / 1000);
    return { started, heard, stopped, watched: performance.now() };
  }

  /** Counters of the present connection. */
  async statistics() {
    const report = [...(await connections.at(-1).getStats()).values()];
    const inbound = (kind) => report.find((s) => s.type === "inbound-rtp" && s.kind === kind) ?? {};
    const codec = report.find((s) => s.id === inbound("video").codecId);
    return { at: performance.now(), video: inbound("video"), audio: inbound("audio"), codec: codec?.mimeType ?? null };
  }

  now() {
    return performance.now();
  }

  /** What was written down since the last `clear`. */
  take() {
    return { voice: this.voice?.take(), microphone: this.microphone?.take(), eye: this.eye?.take() };
  }

  clear() {
    this.voice?.clear();
    this.microphone?.clear();
    this.eye?.clear();
  }

  /** Say goodbye properly, so that the server has its seat back. */
  close() {
    this.voice?.stop();
    this.microphone?.stop();
    this.eye?.stop();
    this.calibration?.stop();
    this.head?.close();
  }
}

window.bench = new Bench();
