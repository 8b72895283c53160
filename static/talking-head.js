/**
 * `<talking-head>`: a living portrait that can be told what to say.
 *
 * Place in the flow: joins the picture (poster, last frame, live video) to a `Peer`. The page builds its controls around
 * it, and an embed can use it alone:
 *
 *     <talking-head avatar="mira"></talking-head>
 *     head.connect(); await head.say("Hello"); head.interrupt();
 *
 * Attributes
 *   avatar   name of the face; the server's first one when left out
 *   server   URL of the server; the page's own folder when left out
 *
 * Events (none bubbles; `detail` in braces)
 *   state     {state, reason, retryAt}   see peer.js; reason is a Problem or null
 *   firstframe {ms}                      the first picture, since `connect` or since the last one was lost
 *   speaking, caption, viseme, metrics, error, accepted, interrupted, action_started, action_ended, quality,
 *   user_speaking, transcript, turn, latency
 *                                     as they come over the data channel; quality also when a connection begins
 *   sound     {muted, blocked}           blocked: the browser wants a click before it plays sound
 *   shape     {ratio}                    width / height of the picture
 *
 * Invariants: the picture is never black; what lies under the video is the last frame that was seen, or the poster.
 */

import { Peer, summarise } from "./peer.js";
import { Api, DEFAULT_CONFIG, problem } from "./protocol.js";

/** How long a hush lasts when the server's answer to an interrupt does not come. */
const HUSH_LIMIT_MS = 1000;
/** Sound sent before that answer is still in the browser's buffer for so long. */
const BUFFER_MS = 120;

const SERVER_EVENTS = new Set([
  ...["caption", "viseme", "metrics", "error", "accepted", "interrupted"],
  ...["action_started", "action_ended", "quality"],
  ...["user_speaking", "transcript", "turn", "latency"],
]);

export class TalkingHead extends HTMLElement {
  #peer = null;
  #poster = new Image();
  #still = document.createElement("canvas");
  #video = document.createElement("video");
  #started = 0;
  #speaking = false;
  #source = "";
  #mode = null;
  #quality;
  #latencyMs = null;
  #unhush;
  #shown;
  #lastState = "new";
  #lastReport;

  constructor() {
    super();
    this.config = DEFAULT_CONFIG;
    this.#poster.alt = "";
    this.#poster.className = "poster";
    this.#poster.onload = () => this.#shape(this.#poster.naturalWidth, this.#poster.naturalHeight);
    this.#poster.onerror = () => this.#poster.removeAttribute("src");
    this.#still.className = "still";
    this.#still.hidden = true;
    this.#video.className = "live";
    this.#video.autoplay = this.#video.playsInline = true;
    this.#video.muted = true;
    this.#video.disablePictureInPicture = true;
    this.#video.addEventListener("resize", () => this.#shape(this.#video.videoWidth, this.#video.videoHeight));
  }

  connectedCallback() {
    if (!this.firstChild) this.append(this.#poster, this.#still, this.#video);
    this.api ??= new Api(new URL(this.getAttribute("server") ?? ".", document.baseURI));
  }

  /** "new", "connecting", "live", "reconnecting", "waiting", "stopped" or "closed". */
  get state() {
    return this.#peer?.state ?? "new";
  }

  /** True while an utterance plays. */
  get speaking() {
    return this.#speaking;
  }

  /** What the utterance that plays, or played last, is made of: "text", "file", "microphone", …; "" before the first. */
  get source() {
    return this.#source;
  }

  /** The session's id, for the server's HTTP API; null without one. */
  get session() {
    return this.#peer?.session ?? null;
  }

  get avatar() {
    return this.getAttribute("avatar") || undefined;
  }

  /** The still shown until the first frame: a URL. */
  set poster(url) {
    this.#poster.src = url;
  }

  /** Connect, or try again now; goes on trying by itself. A second call after `close` starts a new session. */
  async connect() {
    this.#started = performance.now();
    if (!this.#peer) {
      this.#peer = new Peer(this.api, { avatar: this.avatar });
      if (this.#quality !== undefined) this.#peer.setQuality(this.#quality);
      if (this.#mode) this.#peer.setMode(this.#mode);
      this.#peer.addEventListener("state", ({ detail }) => this.#onState(detail));
      this.#peer.addEventListener("stream", ({ detail }) => this.#show(detail.stream));
      this.#peer.addEventListener("leaving", () => this.#freeze());
      this.#peer.addEventListener("message", ({ detail }) => this.#onMessage(detail.event));
    }
    this.#peer.avatar = this.avatar;
    this.#peer.iceServers = this.config.ice_servers;
    await this.#peer.connect();
  }

  /** End the session and give its seat back. */
  close() {
    this.#peer?.close();
  }

  /**
   * Speak a text, after whatever is being spoken.
   * @param {string} text
   * @returns {Promise<{utterance_id: number}>}
   * @throws {import("./protocol.js").Problem} `text_empty`, `text_too_long`, `busy`, `not_connected`, …
   */
  say(text) {
    return this.api.say(this.#session(), text);
  }

  /**
   * Speak a sound file in its own voice.
   * @param {Blob} file wav, mp3, flac, ogg or m4a
   * @param {{onProgress?: (fraction: number) => void, signal?: AbortSignal}} [options]
   */
  async play(file, options) {
    const limit = this.config.audio_max_bytes;
    if (file.size > limit) throw problem("file_too_large");
    return this.api.audio(this.#session(), file, options);
  }

  /** Stop speaking at once; the mouth eases shut. */
  interrupt() {
    this.#hush(HUSH_LIMIT_MS);
    if (this.#peer?.send({ type: "interrupt" }) || !this.#peer?.session) return;
    this.api.interrupt(this.#peer.session).then(() => this.#hush(BUFFER_MS), () => {});
  }

  /**
   * Have a text answered, in place of whatever is being said.
   * @param {string} text
   * @returns {Promise<{turn_id: number}>}
   * @throws {import("./protocol.js").Problem} `text_empty`, `text_too_long`, `conversation_missing`, `not_connected`, …
   */
  ask(text) {
    return this.api.ask(this.#session(), text);
  }

  /**
   * What becomes of the microphone: it is answered, spoken back in its own voice, or ignored.
   * @param {"converse"|"mirror"|"say"} mode
   */
  setMode(mode) {
    this.#mode = mode;
    this.#peer?.setMode(mode);
  }

  get mode() {
    return this.#mode ?? this.config.mode;
  }

  /** Mirror: have what the microphone hears spoken back in its own voice, or not. */
  mirror(on) {
    this.setMode(on ? "mirror" : "say");
  }

  get mirroring() {
    return this.mode === "mirror";
  }

  /**
   * Push to talk: the microphone is heard only while the key is down; null listens always again.
   * @param {boolean|null} down
   */
  pushToTalk(down) {
    this.#peer?.send({ type: "push_to_talk", down });
  }

  /**
   * Tell the face that somebody else has the floor: while it says nothing itself, it shows that it listens.
   * @param {boolean} on
   */
  listen(on) {
    this.#peer?.setListening(on);
  }

  /**
   * Play a clip of the face, once or, when it loops, until `stopAction`, another one or speech. What comes of it is an
   * event: `action_started`, or `error` for a clip that this face does not have.
   * @param {string} name e.g. "greeting", "nod", "thinking"; see `clips` of the server's avatars
   */
  act(name) {
    this.#peer?.send({ type: "act", name });
  }

  /** End what `act` began. */
  stopAction() {
    this.#peer?.send({ type: "stop_action" });
  }

  /**
   * Ask for more or less restoring of the face, now and after every reconnect. What there is then is an event, `quality`:
   * `{asked, level, reason}`.
   * @param {"auto"|0|1|2|3|4|5} quality
   */
  setQuality(quality) {
    this.#quality = quality;
    this.#peer?.setQuality(quality);
  }

  /** Send this microphone track; null sends nothing. Needs no new connection. */
  async setMicrophone(track) {
    await this.#peer?.setMicrophone(track);
  }

  get muted() {
    return this.#video.muted;
  }

  set muted(muted) {
    this.#video.muted = muted;
    this.#tell("sound", { muted, blocked: false });
  }

  /** 0 to 1. iOS leaves it to the keys at the side. */
  get volume() {
    return this.#video.volume;
  }

  set volume(volume) {
    this.#video.volume = volume;
  }

  /** The video element, for measurements. */
  get video() {
    return this.#video;
  }

  /**
   * Figures of the present connection: see `summarise` in peer.js, and `latency_ms`, the data channel's round trip.
   * Buffers are averages since the last call.
   * @returns {Promise<Record<string, number|string|null>|null>} null without a connection
   */
  async stats() {
    const report = await this.#peer?.statistics();
    if (!report) return null;
    const figures = summarise(report, this.#lastReport);
    this.#lastReport = report;
    return { ...figures, latency_ms: this.#latencyMs };
  }

  /** Silence here and now, while the interrupt travels and what is already in the browser's buffer runs out. */
  #hush(ms) {
    clearTimeout(this.#unhush);
    const tracks = this.#video.srcObject?.getAudioTracks() ?? [];
    for (const track of tracks) track.enabled = false;
    this.#unhush = setTimeout(() => tracks.forEach((track) => (track.enabled = true)), ms);
  }

  #session() {
    if (!this.#peer?.session || this.state !== "live") throw problem("not_connected");
    return this.#peer.session;
  }

  #onState(detail) {
    if (this.#lastState === "live" && detail.state !== "live") this.#started = performance.now();
    this.#lastState = detail.state;
    if (detail.state !== "live") this.#setSpeaking({ type: "speaking", speaking: false });
    this.#tell("state", detail);
  }

  #onMessage(event) {
    if (event.type === "interrupted") this.#hush(BUFFER_MS);
    if (event.type === "state" && event.quality) this.#tell("quality", event.quality);
    if (event.type === "pong") this.#latencyMs = Math.round(performance.now() - event.t);
    else if (event.type === "speaking") this.#setSpeaking(event);
    else if (SERVER_EVENTS.has(event.type)) this.#tell(event.type, event);
  }

  #setSpeaking(event) {
    const speaking = Boolean(event.speaking);
    if (speaking === this.#speaking && !speaking) return;
    this.#speaking = speaking;
    if (speaking) this.#source = event.label ?? "";
    this.#tell("speaking", event);
  }

  /** Play a new stream under whatever is visible, and fade it in once it has a picture. */
  async #show(stream) {
    this.#video.srcObject = stream;
    this.#shown = this.avatar;
    const arrived = () => {
      if (this.#video.srcObject !== stream) return;
      this.classList.add("showing");
      this.#tell("firstframe", { ms: Math.round(performance.now() - this.#started) });
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(arrived);
    else this.#video.addEventListener("playing", arrived, { once: true });
    try {
      await this.#video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return;
      // Sound was on before, but this load has had no click yet: the picture goes on without it.
      this.#video.muted = true;
      this.#tell("sound", { muted: true, blocked: true });
      await this.#video.play().catch(() => {});
    }
  }

  /** Keep the last frame on the screen while there is no stream; a new face begins with its poster. */
  #freeze() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (this.#shown !== this.avatar) this.#still.hidden = true;
    else if (width && this.classList.contains("showing")) {
      Object.assign(this.#still, { width, height, hidden: false });
      this.#still.getContext("2d").drawImage(this.#video, 0, 0);
    }
    this.classList.remove("showing");
    this.#video.srcObject = null;
  }

  #shape(width, height) {
    if (width && height) this.#tell("shape", { ratio: width / height });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

customElements.define("talking-head", TalkingHead);
