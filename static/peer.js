/**
 * One connection to the server that is made, kept and made again.
 *
 * Place in the flow: above `protocol.js`, below `talking-head.js`. It owns the RTCPeerConnection, the data channel and the
 * session's id; it knows nothing of pages and pixels.
 *
 * Invariants:
 *   - at most one RTCPeerConnection is alive, and every callback of an older one is ignored;
 *   - the audio line is sendrecv from the start, so a microphone joins by replaceTrack, without another offer;
 *   - the microphone, the quality, the mode and the switch for listening survive a reconnect; the session's id does not (aiortc has no ICE restart);
 *   - a session that this page has opened is closed by it, whatever happens in between.
 *
 * States: new -> connecting -> live -> (reconnecting -> live)* -> closed. `waiting` is a seat we are queueing for,
 * `stopped` needs a person. The state event carries the reason as a Problem and, when there will be another try, when.
 */

import { Api, CHANNEL, parseEvent, problem, Problem } from "./protocol.js";

const HEARTBEAT_MS = 1000;
/** Silence on the data channel that counts as a broken connection. */
const SILENCE_MS = 4000;
/** How long ICE may say "disconnected" before we stop believing in it. */
const DISCONNECTED_MS = 2000;
/** From the answer to a connection; a route that exists is found in a tenth of that. */
const CONNECT_MS = 8000;
const OFFER_MS = 15_000;
/** Host candidates are there within milliseconds; the rest arrives as peer-reflexive. Relays need a round trip. */
const GATHER_MS = 150;
const GATHER_RELAY_MS = 1500;
const BACKOFF_MS = [250, 500, 1000, 2000, 4000, 8000];
const FULL_RETRY_S = 5;
/** A lost seat is free again within two seconds. */
const OWN_SEAT_ATTEMPTS = 4;
const OWN_SEAT_MS = 700;
/** Attempts without a route before we stop and explain. */
const ROUTE_ATTEMPTS = 2;

export class Peer extends EventTarget {
  #pc = null;
  #channel = null;
  #sender = null;
  #microphone = null;
  #mode = null;
  #listening = false;
  #quality;
  #generation = 0;
  #retryTimer = 0;
  #heartbeat = 0;
  #failures = 0;
  #abort = null;
  #wasLive = false;

  /**
   * @param {Api} api the server's HTTP side
   * @param {{avatar?: string, iceServers?: RTCIceServer[]}} options
   */
  constructor(api, { avatar, iceServers = [] } = {}) {
    super();
    this.api = api;
    this.avatar = avatar;
    this.iceServers = iceServers;
    this.state = "new";
    this.reason = null;
    this.session = null;
  }

  /** Connect, or try again at once. Returns when the attempt has ended; the outcome is a state event. */
  connect() {
    if (typeof RTCPeerConnection === "undefined") return this.#setState("stopped", problem("webrtc_missing"));
    this.#failures = 0;
    return this.#begin(this.#wasLive ? "reconnecting" : "connecting", null);
  }

  /** One attempt. State and reason stay as they are told here until it has ended, so that words do not flicker. */
  async #begin(state, reason) {
    clearTimeout(this.#retryTimer);
    this.#drop();
    const generation = this.#generation;
    this.#setState(state, reason);
    try {
      await this.#attempt(generation);
    } catch (error) {
      if (generation === this.#generation) this.#failed(error);
    }
  }

  /** Say goodbye: closes the session and the connection. `connect` brings it back. */
  close() {
    clearTimeout(this.#retryTimer);
    this.#drop();
    this.#wasLive = false;
    this.#setState("closed");
  }

  /**
   * Send a command through the data channel.
   * @returns {boolean} false when there is no open channel
   */
  send(command) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(JSON.stringify(command));
    return true;
  }

  /** Send this microphone track from now on; null sends nothing. */
  async setMicrophone(track) {
    this.#microphone = track;
    await this.#sender?.replaceTrack(track);
  }

  /** What becomes of the microphone: "converse", "mirror" or "say". Kept across reconnects. */
  setMode(mode) {
    this.#mode = mode;
    this.send({ type: "mode", mode });
  }

  /** Have the face show that it listens, or not. Kept across reconnects. */
  setListening(on) {
    this.#listening = on;
    this.send({ type: "listening", on });
  }

  /** Have more or less of the face restored: "auto" or 0 to 5. Kept across reconnects. */
  setQuality(quality) {
    this.#quality = quality;
    this.send({ type: "quality", quality });
  }

  /** The browser's raw statistics, or null while there is no connection. */
  async statistics() {
    return this.#pc ? this.#pc.getStats() : null;
  }

  async #attempt(generation) {
    const pc = new RTCPeerConnection({ iceServers: this.iceServers, bundlePolicy: "max-bundle" });
    this.#pc = pc;
    const stale = () => generation !== this.#generation;
    const stream = new MediaStream();
    pc.ontrack = ({ track }) => {
      if (stale()) return;
      stream.addTrack(track);
      if (stream.getTracks().length === 2) this.#emit("stream", { stream });
    };
    this.#sender = pc.addTransceiver(this.#microphone ?? "audio", { direction: "sendrecv" }).sender;
    pc.addTransceiver("video", { direction: "recvonly" });
    this.#open(pc.createDataChannel(CHANNEL), stale);
    const connected = this.#connected(pc, stale);
    // Nobody awaits it before the answer is in; a failure until then must not be an unhandled rejection.
    connected.catch(() => {});

    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc, this.iceServers.length ? GATHER_RELAY_MS : GATHER_MS);
    if (stale()) return;
    const answer = await this.#exchange(pc.localDescription);
    if (stale()) return this.api.close(answer.session_id);
    this.session = answer.session_id;
    await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    await within(connected, CONNECT_MS, "no_route");
    if (stale()) return;
    this.#failures = 0;
    this.#wasLive = true;
    this.#setState("live");
  }

  async #exchange(offer) {
    this.#abort = new AbortController();
    const timer = setTimeout(() => this.#abort?.abort(), OFFER_MS);
    try {
      const body = { sdp: offer.sdp, type: offer.type };
      if (this.avatar) body.avatar = this.avatar;
      if (this.#quality !== undefined) body.quality = this.#quality;
      return await this.api.offer(body, this.#abort.signal);
    } catch (error) {
      throw error.name === "AbortError" ? problem("server_gone") : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Resolves when ICE and DTLS are up; afterwards watches the same connection for its end. */
  #connected(pc, stale) {
    return new Promise((resolve, reject) => {
      let lostTimer = 0;
      const lost = () => !stale() && this.#lost();
      pc.onconnectionstatechange = () => {
        clearTimeout(lostTimer);
        if (pc.connectionState === "connected") {
          resolve();
        } else if (pc.connectionState === "failed" || pc.connectionState === "closed") {
          reject(problem("no_route"));
          lost();
        } else if (pc.connectionState === "disconnected") {
          lostTimer = setTimeout(lost, DISCONNECTED_MS);
        }
      };
    });
  }

  #open(channel, stale) {
    this.#channel = channel;
    let heard = performance.now();
    let ticked = heard;
    channel.onopen = () => {
      if (stale()) return;
      heard = ticked = performance.now();
      if (this.#mode) this.send({ type: "mode", mode: this.#mode });
      if (this.#listening) this.send({ type: "listening", on: true });
      this.#heartbeat = setInterval(() => {
        const now = performance.now();
        // A late tick means that this page slept; the server deserves a chance to answer first.
        if (now - ticked > SILENCE_MS) heard = now;
        ticked = now;
        if (now - heard > SILENCE_MS) return this.#lost();
        this.send({ type: "ping", t: now });
      }, HEARTBEAT_MS);
      this.send({ type: "ping", t: heard });
    };
    channel.onmessage = ({ data }) => {
      heard = performance.now();
      const event = stale() ? null : parseEvent(data);
      if (event?.type === "state" && ["ended", "closed"].includes(event.state)) this.#ended(event);
      else if (event) this.#emit("message", { event });
    };
    channel.onclose = () => !stale() && this.#lost();
  }

  #lost() {
    if (this.state === "live") this.#begin("reconnecting", problem("connection_lost"));
  }

  /** The server has ended the session on purpose: nothing to reconnect to until somebody asks. */
  #ended(event) {
    this.session = null;
    this.#drop();
    this.#wasLive = false;
    this.#setState("stopped", new Problem("session_ended", event.message ?? ""));
  }

  #failed(error) {
    this.#drop();
    this.#failures += 1;
    const delay = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length) - 1] * (0.8 + 0.4 * Math.random());
    if (error.code === "server_full" && this.#wasLive && this.#failures <= OWN_SEAT_ATTEMPTS) {
      // Most likely the seat that is taken is the one we have just lost.
      this.#retry("reconnecting", this.reason, OWN_SEAT_MS);
    } else if (error.code === "server_full") {
      this.#retry("waiting", error, (error.retryAfterS || FULL_RETRY_S) * 1000);
    } else if (error.code === "no_route" && this.#failures >= ROUTE_ATTEMPTS) {
      this.#setState("stopped", error);
    } else if (error.status >= 400 && error.status < 500) {
      this.#setState("stopped", error);
    } else {
      this.#retry(this.#wasLive ? "reconnecting" : "connecting", error.status >= 500 ? problem("server_gone") : error, delay);
    }
  }

  #retry(state, reason, delayMs) {
    this.#retryTimer = setTimeout(() => this.#begin(state, reason), delayMs);
    this.#setState(state, reason, performance.now() + delayMs);
  }

  /** Forget the present connection; its callbacks are stale from here on. */
  #drop() {
    this.#generation += 1;
    clearInterval(this.#heartbeat);
    this.#abort?.abort();
    this.#abort = null;
    if (this.session) this.api.close(this.session);
    this.session = null;
    const pc = this.#pc;
    this.#pc = this.#channel = this.#sender = null;
    if (pc) {
      this.#emit("leaving", {});
      pc.close();
    }
  }

  /** @param {number} [retryAt] performance.now() of the next attempt */
  #setState(state, reason = null, retryAt = 0) {
    this.state = state;
    this.reason = reason;
    this.#emit("state", { state, reason, retryAt });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Resolves when candidates are gathered, or after `limitMs`: a candidate that takes longer is not worth the wait. */
function gathered(pc, limitMs) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, limitMs);
    const check = () => {
      if (pc.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    };
    pc.onicegatheringstatechange = check;
    check();
  });
}

/** The same promise, rejecting with a problem of this code when it takes longer than `limitMs`. */
function within(promise, limitMs, code) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(problem(code)), limitMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * The figures that matter, out of a statistics report. Missing ones are null.
 *
 * @param {RTCStatsReport} report
 * @param {RTCStatsReport} [before] an earlier one: buffers are averages since then, else since the connection was made
 * @returns {Record<string, number|string|null>} counters are totals since the connection was made
 */
export function summarise(report, before = new Map()) {
  const all = [...report.values()];
  const inbound = (kind) => all.find((s) => s.type === "inbound-rtp" && s.kind === kind) ?? {};
  const video = inbound("video");
  const audio = inbound("audio");
  const transport = all.find((s) => s.type === "transport") ?? {};
  const pair = report.get(transport.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated) ?? {};
  const ms = (seconds) => (seconds === undefined ? null : Math.round(seconds * 1000));
  const buffer = (s) => {
    const { jitterBufferDelay: delay = 0, jitterBufferEmittedCount: count = 0 } = before.get(s.id) ?? {};
    return s.jitterBufferEmittedCount > count ? ms((s.jitterBufferDelay - delay) / (s.jitterBufferEmittedCount - count)) : null;
  };
  return {
    fps: video.framesPerSecond ?? null,
    frames_decoded: video.framesDecoded ?? null,
    frames_dropped: video.framesDropped ?? null,
    freezes: video.freezeCount ?? null,
    width: video.frameWidth ?? null,
    height: video.frameHeight ?? null,
    codec: report.get(video.codecId)?.mimeType?.replace("video/", "") ?? null,
    video_buffer_ms: buffer(video),
    audio_buffer_ms: buffer(audio),
    rtt_ms: ms(pair.currentRoundTripTime),
    packets_received: (video.packetsReceived ?? 0) + (audio.packetsReceived ?? 0),
    packets_lost: (video.packetsLost ?? 0) + (audio.packetsLost ?? 0),
    bytes_received: (video.bytesReceived ?? 0) + (audio.bytesReceived ?? 0),
    audio_energy: audio.totalAudioEnergy ?? null,
    audio_concealed: audio.concealedSamples ?? null,
    route: report.get(pair.localCandidateId)?.candidateType ?? null,
  };
}
