/**
 * `<talking-head>`: a living portrait that can be told what to say.
 *
 * Place in the flow: joins the picture (poster, last frame, live video) to a `Peer`; pages build their controls around it:
 *
 *     <talking-head avatar="mira"></talking-head>; head.connect(); await head.say("Hello"); head.interrupt();
 *
 * Attributes
 *   avatar   name of the face; the server's first one when left out
 *   server   URL of the server; the page's own folder when left out
 *   watch    id of a broadcast: it is watched, without microphone, commands and events of what is said
 *   background  what is behind the person: filmed, blur, transparent or #rrggbb
 *
 * Events (none bubbles; `detail` in braces)
 *   state     {state, reason, retryAt}   see peer.js; reason is a Problem or null
 *   firstframe {ms}                      the first picture, since `connect` or since the last one was lost
 *   speaking, caption, viseme, metrics, error, accepted, interrupted, paused, resumed, action_started, action_ended, quality, user_speaking, transcript, turn, latency
 *                                     as they come over the data channel; quality also when a connection begins
 *   ending    {reason, seconds_left}     the session ends soon, for being idle or too_long; null seconds: it does not after all
 *   stream    {stream}                   sound and picture of a new connection
 *   sound     {muted, blocked}           blocked: the browser wants a click before it plays sound
 *   shape     {ratio}                    width / height of the picture
 *
 * Invariants: the picture is never black; what lies under the video is the last frame that was seen, or the poster.
 */

import { MODES } from "./background.js";
import { ServerClock } from "./clock.js";
import { Layers } from "./layers.js";
import { Peer } from "./peer.js";
import { Api, DEFAULT_CONFIG, problem } from "./protocol.js";
import { summarise } from "./statistics.js";

/** How long a hush lasts when the server's answer to an interrupt does not come. */
const HUSH_LIMIT_MS = 1000;
/** Sound sent before that answer is still in the browser's buffer for so long. */
const BUFFER_MS = 120;

const SERVER_EVENTS = new Set([
  ...["caption", "viseme", "metrics", "error", "accepted", "interrupted", "paused", "resumed"],
  ...["action_started", "action_ended", "quality"],
  ...["user_speaking", "transcript", "turn", "latency"],
]);

export class TalkingHead extends HTMLElement {
  #peer = null;
  #layers = new Layers(this, (ratio) => this.#tell("shape", { ratio }), () => this.setBackground({ mode: "filmed" }));
  #video = this.#layers.video;
  #started = 0;
  #speaking = false;
  #source = "";
  #mode = null;
  #wishes = new Map();
  #quality;
  #clock = new ServerClock();
  #latencyMs = null;
  #unhush;
  #shown;
  #lastState = "new";
  #lastReport;
  config = DEFAULT_CONFIG;

  connectedCallback() {
    this.#layers.mount();
    this.api ??= new Api(new URL(this.getAttribute("server") ?? ".", document.baseURI));
  }

  static observedAttributes = ["background"];

  attributeChangedCallback(_name, _before, now) {
    this.setBackground(now?.startsWith("#") ? { mode: "colour", colour: now } : { mode: MODES.includes(now) ? now : "filmed" });
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
    this.#layers.address = url;
  }

  /** Connect, or try again now; goes on trying by itself. A second call after `close` starts a new session. */
  async connect() {
    this.#started = performance.now();
    if (!this.#peer) {
      this.#peer = new Peer(this.api, { avatar: this.avatar, wishes: this.#wishes, watch: this.getAttribute("watch") });
      if (this.#quality !== undefined) this.#peer.setQuality(this.#quality);
      this.#peer.addEventListener("state", ({ detail }) => this.#onState(detail));
      this.#peer.addEventListener("stream", ({ detail }) => this.#show(detail.stream));
      this.#peer.addEventListener("leaving", () => this.#layers.freeze(this.#shown === this.avatar));
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
    if (file.size > this.config.audio_max_bytes) throw problem("file_too_large");
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

  /** What becomes of the microphone, "converse", "mirror" or "say": it is answered, spoken back in its own voice, or ignored. */
  setMode(mode) {
    this.#mode = mode;
    this.#wish({ type: "mode", mode });
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
    this.#wish({ type: "push_to_talk", down });
  }

  /** How the avatar talks: one of the styles it has. Like all that follows here, now and in every session to come. */
  setStyle(name) {
    this.#wish({ type: "style", name });
  }

  /** Which language model answers: an id of the server's `language_models`. */
  setLanguageModel(id) {
    this.#wish({ type: "language_model", id });
  }

  /**
   * How the avatar sounds.
   * @param {{pitch: number, formant: number, conversion: string}} voice both in semitones; one of the server's `voice_conversions`, or none
   */
  setVoice({ pitch, formant, conversion }) {
    this.#wish({ type: "voice", pitch, formant, conversion });
  }

  /**
   * What is behind the person, now and after every reconnect.
   * @param {{mode: "filmed"|"blur"|"colour"|"image"|"transparent", colour?: string, image?: ImageBitmap}} choice `#rrggbb`; a picture that covers
   * @returns {boolean} false where this browser cannot change it
   */
  setBackground(choice) {
    const possible = this.#layers.choose(choice);
    const packed = this.background !== "filmed";
    if (packed || this.#wishes.has("background")) this.#wish({ type: "background", background: packed ? "packed" : "filmed" });
    return possible;
  }

  get background() {
    return this.#layers.background.mode;
  }

  /** Leave the style to the face, which may not have the one that was chosen for another. */
  forgetStyle() {
    this.#wishes.delete("style");
  }

  /**
   * The first sound of a turn's answer was audible here.
   * @param {number} turnId
   * @param {number} pageMs `performance.now()` then
   */
  heard(turnId, pageMs) {
    const serverMs = this.#clock.at(pageMs);
    if (serverMs !== null) this.#peer?.send({ type: "heard", turn_id: turnId, server_ms: Math.round(serverMs * 10) / 10 });
  }

  /**
   * Tell the face that somebody else has the floor: while it says nothing itself, it shows that it listens.
   * @param {boolean} on
   */
  listen(on) {
    this.#wish({ type: "listening", on });
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
    // A browser that wants a click first has stopped the picture as well.
    if (!muted && this.#video.srcObject) this.#play();
  }

  /** 0 to 1. iOS leaves it to the keys at the side. */
  get volume() {
    return this.#video.volume;
  }

  set volume(volume) {
    this.#video.volume = volume;
  }

  /** Play its sound on another loudspeaker: a device's id, "" for the system's own. Rejects where that cannot be. */
  async setSpeaker(id) {
    await this.#video.setSinkId(id);
  }

  /** The video element, for measurements. */
  get video() {
    return this.#video;
  }

  /**
   * Figures of the present connection: see `summarise` in statistics.js, and `latency_ms`, the data channel's round trip.
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

  /** Something that is wanted whatever the connection does. */
  #wish(command) {
    this.#wishes.set(command.type, command);
    this.#peer?.send(command);
  }

  #session() {
    if (!this.#peer?.session || this.state !== "live") throw problem("not_connected");
    return this.#peer.session;
  }

  #onState(detail) {
    if (this.#lastState === "live" && detail.state !== "live") this.#started = performance.now();
    this.#lastState = detail.state;
    if (detail.state !== "live") {
      this.#setSpeaking({ type: "speaking", speaking: false });
      this.#clock.reset();
    }
    this.#tell("state", detail);
  }

  #onMessage(event) {
    if (event.type === "interrupted") this.#hush(BUFFER_MS);
    if (event.type === "state" && event.quality) this.#tell("quality", event.quality);
    if (event.type === "state" && event.state === "ending") this.#tell("ending", event);
    if (event.type === "error" && event.code === "matte_failed") this.setBackground({ mode: "filmed" });
    if (event.type === "pong") this.#onPong(event);
    else if (event.type === "speaking") this.#setSpeaking(event);
    else if (SERVER_EVENTS.has(event.type)) this.#tell(event.type, event);
  }

  #onPong({ t: sentMs, server_ms: serverMs }) {
    const nowMs = performance.now();
    this.#latencyMs = Math.round(nowMs - sentMs);
    this.#clock.pong(sentMs, nowMs, serverMs);
  }

  #setSpeaking(event) {
    const speaking = Boolean(event.speaking);
    if (speaking === this.#speaking && !speaking) return;
    this.#speaking = speaking;
    if (speaking) this.#source = event.label ?? "";
    this.#tell("speaking", event);
  }

  /** Play a new stream under whatever is visible, and fade it in once it has a picture. */
  #show(stream) {
    this.#video.srcObject = stream;
    this.#shown = this.avatar;
    this.#tell("stream", { stream });
    this.#layers.reveal(stream, () => this.#tell("firstframe", { ms: Math.round(performance.now() - this.#started) }));
    this.#play();
  }

  async #play() {
    try {
      await this.#video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError" || this.#video.muted) return;
      // Sound is wanted, but this load has had no click yet: the picture goes on without it.
      this.#video.muted = true;
      this.#tell("sound", { muted: true, blocked: true });
      this.#play();
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

customElements.define("talking-head", TalkingHead);
