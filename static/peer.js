/**
 * One connection to the server that is made, kept and made again.
 *
 * Place in the flow: above `protocol.js`, below `talking-head.js`. It owns the RTCPeerConnection, the data channel and the
 * session's id; it knows nothing of pages and pixels.
 *
 * Invariants:
 *   - at most one RTCPeerConnection is alive, and every callback of an older one is ignored;
 *   - the audio line is sendrecv from the start, so a microphone joins by replaceTrack, without another offer;
 *   - the session survives a lost connection: the next offer names it, and the server goes on with it where it still has it, or
 *     in another process, under another name, where it was lost with its own;
 *     the microphone, the quality and all wishes survive even the end of a session;
 *   - the connection before stays open until there is an answer to the offer that takes its place, because closing it tells
 *     the server that nobody will come back;
 *   - a session that this page has opened is closed by it when it is done with it, whatever happens in between.
 *
 * States: new -> connecting -> live -> (reconnecting -> live)* -> closed. `waiting` is a seat we are queueing for,
 * `stopped` needs a person. The state event carries the reason as a Problem and, when there will be another try, when.
 */

import { Api, CHANNEL, parseEvent, problem, Problem } from "./protocol.js";

const HEARTBEAT_MS = 1000;
/** Silence on the data channel that counts as a broken connection. */
const SILENCE_MS = 4000;
/** How long a pong may take before the server is asked, past the process that holds the session, whether there still is one. */
const PONG_MS = 700;
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
/** Connections of one session that wait to be replaced. */
const FORMERS_KEPT = 3;
/** What is over by itself. */
const BUSY = new Set(["server_full", "broadcast_full", "too_many_requests"]);
/** A seat that was given back is free again within two seconds. */
const OWN_SEAT_ATTEMPTS = 4;
const OWN_SEAT_MS = 700;
/** Attempts without a route before we stop and explain. */
const ROUTE_ATTEMPTS = 2;

export class Peer extends EventTarget {
  #pc = null;
  #channel = null;
  #sender = null;
  #microphone = null;
  #quality;
  /** The session that was live last, and whose face it shows; the connections that it had. */
  #kept = null;
  #formers = [];
  /** Our place in the line: "" before we have one. */
  #ticket = "";
  #admitted = null;
  #generation = 0;
  #retryTimer = 0;
  #heartbeat = 0;
  #doubt = 0;
  #failures = 0;
  #abort = null;
  #wasLive = false;

  /**
   * @param {Api} api the server's HTTP side
   * @param {{avatar?: string, iceServers?: RTCIceServer[], wishes?: Map<string, object>, watch?: string|null}} options
   *   wishes: commands that every session begins with, by type; whoever changes one also sends it.
   *   watch: a broadcast, of which there is no session here: sound and picture come in, and nothing goes out
   */
  constructor(api, { avatar, iceServers = [], wishes = new Map(), watch = null } = {}) {
    super();
    this.api = api;
    this.watch = watch;
    this.avatar = avatar;
    this.iceServers = iceServers;
    this.wishes = wishes;
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
    if (this.#kept && this.#kept.avatar !== this.avatar) this.#forget();
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
    this.#forget();
    this.#ticket = "";
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
    const stale = () => generation !== this.#generation;
    // Whoever has a place in the line has shown what lets them in, and it may be good for once only.
    if (!this.#ticket) this.#admitted = this.watch ? {} : await this.api.admission();
    if (stale()) return undefined;
    const { token, ice_servers: iceServers = this.iceServers } = this.#admitted;
    const pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc = pc;
    const stream = new MediaStream();
    pc.ontrack = ({ track }) => {
      if (stale()) return;
      stream.addTrack(track);
      if (stream.getTracks().length === 2) this.#emit("stream", { stream });
    };
    this.#sender = pc.addTransceiver(this.#microphone ?? "audio", { direction: this.watch ? "recvonly" : "sendrecv" }).sender;
    pc.addTransceiver("video", { direction: "recvonly" });
    if (!this.watch) this.#open(pc.createDataChannel(CHANNEL), stale);
    const connected = this.#connected(pc, stale);
    // Nobody awaits it before the answer is in; a failure until then must not be an unhandled rejection.
    connected.catch(() => {});

    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc, iceServers.length ? GATHER_RELAY_MS : GATHER_MS);
    if (stale()) return undefined;
    const returning = this.#kept;
    const answer = await this.#exchange(pc.localDescription, token);
    // Its process was lost; it goes on in another one, under another name.
    if (answer.resumed && returning && returning === this.#kept) returning.id = answer.session_id;
    if (stale()) return this.watch || answer.session_id === this.#kept?.id ? undefined : this.api.close(answer.session_id);
    this.#ticket = "";
    this.session = answer.session_id ?? null;
    await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    await within(connected, CONNECT_MS, "no_route");
    if (stale()) return undefined;
    this.#failures = 0;
    this.#wasLive = true;
    this.#kept = this.session && { id: this.session, avatar: this.avatar };
    this.#closeFormers();
    return this.#setState("live");
  }

  async #exchange(offer, token) {
    this.#abort = new AbortController();
    const timer = setTimeout(() => this.#abort?.abort(), OFFER_MS);
    try {
      if (this.watch) return await this.api.offer({ sdp: offer.sdp, type: offer.type, watch: this.watch }, this.#abort.signal);
      const body = { sdp: offer.sdp, type: offer.type, ticket: this.#ticket };
      if (this.#kept) body.session_id = this.#kept.id;
      if (this.avatar) body.avatar = this.avatar;
      if (this.#quality !== undefined) body.quality = this.#quality;
      if (this.wishes.has("background")) body.background = this.wishes.get("background").background;
      if (token) body.token = token;
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
    const ping = (now) => {
      this.send({ type: "ping", t: now });
      clearTimeout(this.#doubt);
      this.#doubt = setTimeout(() => heard < now && this.#ask(stale), PONG_MS);
    };
    channel.onopen = () => {
      if (stale()) return;
      heard = ticked = performance.now();
      for (const command of this.wishes.values()) this.send(command);
      // A session that goes on does not read the offer for it.
      if (this.#kept && this.#quality !== undefined) this.send({ type: "quality", quality: this.#quality });
      this.#heartbeat = setInterval(() => {
        const now = performance.now();
        // A late tick means that this page slept; the server deserves a chance to answer first.
        if (now - ticked > SILENCE_MS) heard = now;
        ticked = now;
        if (now - heard > SILENCE_MS) return this.#lost();
        ping(now);
      }, HEARTBEAT_MS);
      ping(heard);
    };
    channel.onmessage = ({ data }) => {
      heard = performance.now();
      const event = stale() ? null : parseEvent(data);
      if (event?.type === "state" && ["ended", "closed"].includes(event.state)) this.#ended(event);
      else if (event) this.#emit("message", { event });
    };
    channel.onclose = () => !stale() && this.#lost();
  }

  /** Whether the session is still there: a server of several processes knows at once when one of them is gone. */
  async #ask(stale) {
    const there = await this.api.lives(this.session);
    if (!there && !stale()) this.#lost();
  }

  #lost() {
    if (this.state === "live") this.#begin("reconnecting", problem("connection_lost"));
  }

  /** The server has ended the session on purpose: nothing to reconnect to until somebody asks. */
  #ended(event) {
    this.session = this.#kept = null;
    this.#drop();
    this.#closeFormers();
    this.#wasLive = false;
    this.#setState("stopped", new Problem("session_ended", event.message ?? ""));
  }

  #failed(error) {
    this.#drop();
    this.#failures += 1;
    this.#ticket = error.queue?.ticket ?? this.#ticket;
    const delay = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length) - 1] * (0.8 + 0.4 * Math.random());
    if (error.code === "server_full" && this.#wasLive && this.#failures <= OWN_SEAT_ATTEMPTS) {
      // Most likely the seat that is taken is the one we have just lost.
      this.#retry("reconnecting", this.reason, OWN_SEAT_MS);
    } else if (BUSY.has(error.code)) {
      this.#retry("waiting", error, (error.retryAfterS || FULL_RETRY_S) * 1000);
    } else if (error.status === 401 && this.#ticket) {
      // The place in the line was lost, as to a sleeping machine: back to its end.
      this.#ticket = "";
      this.#retry("waiting", this.reason, delay);
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
    clearTimeout(this.#doubt);
    this.#abort?.abort();
    this.#abort = null;
    const returns = this.session !== null && this.session === this.#kept?.id;
    if (this.session && !returns) this.api.close(this.session);
    this.session = null;
    const pc = this.#pc;
    this.#pc = this.#channel = this.#sender = null;
    if (!pc) return;
    this.#emit("leaving", {});
    if (returns) this.#formers.push(pc);
    else pc.close();
    if (this.#formers.length > FORMERS_KEPT) this.#formers.shift().close();
  }

  #closeFormers() {
    for (const pc of this.#formers.splice(0)) pc.close();
  }

  /** Give up the session that could have gone on. */
  #forget() {
    if (this.#kept) this.api.close(this.#kept.id);
    this.#kept = null;
    this.#closeFormers();
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
