/**
 * What travels between the page and the server, and what can go wrong on the way.
 *
 * Place in the flow: below everything but the words. It knows URLs and messages; it knows no RTCPeerConnection and
 * touches no document. `peer.js` and `talking-head.js` call it, `app.js` shows its explanations.
 *
 * Wire, in short (the server's README has the whole table):
 *   POST   offer                     {sdp, type, avatar?, quality?, token?, ticket?, session_id?} -> {sdp, type, session_id, resumed?, ice_servers?}
 *   POST   tokens                    {page_token} -> {token, page_token, ice_servers}
 *   POST   sessions/{id}/say         {text}
 *   POST   sessions/{id}/ask         {text}
 *   POST   sessions/{id}/audio       the bytes of a sound file
 *   POST   conversions?pitch=&formant=&conversion=   a sound file -> {id, state, progress}; then GET, DELETE conversions/{id}
 *   POST   sessions/{id}/interrupt
 *   POST   sessions/{id}/close       also by sendBeacon while the page goes away
 *   GET    avatars, avatars/{name}/poster.jpg, avatars/{name}/thumbnail.webp, config.json, studio.json
 *   errors {error: {code, message}}  with a fitting status and, when busy, Retry-After and perhaps a place in the line:
 *                                    {queue: {ticket, position, retry_after_s}}
 *   data channel "visavis"           commands say, ask, interrupt, mode, push_to_talk, listening, act, stop_action, quality,
 *                                    style, language_model, voice, heard, ping; events state, speaking, caption, viseme, action_started, action_ended, quality,
 *                                    user_speaking, transcript, turn, latency, metrics, error, pong
 */

import { has, t } from "./language.js";

export const CHANNEL = "visavis";

/** Used until, or in place of, what `config.json` says. */
export const DEFAULT_CONFIG = Object.freeze({
  text_max_chars: 1000,
  audio_max_bytes: 25 * 1024 * 1024,
  session_max_s: 3600,
  restores: false,
  quality: "auto",
  mode: "mirror",
  hears: false,
  conversation_note: "",
  styles: [],
  style: "",
  language_models: [],
  language_model: "",
  voice_conversions: null,
  wake_word: "",
  ice_servers: [],
});

export const AUDIO_TYPES = ".wav,.mp3,.flac,.ogg,.oga,.opus,.m4a,.aac,.webm,audio/*";

/** A failure with a stable code; `message` is a sentence for people. */
export class Problem extends Error {
  /**
   * @param {string} code stable snake_case identifier
   * @param {string} message one or two sentences, with what to do
   * @param {{status?: number, retryAfterS?: number, queue?: {ticket: string, position: number}|null}} detail HTTP status;
   *   seconds to wait before another try; a place in the line, 1 being next
   */
  constructor(code, message, { status = 0, retryAfterS = 0, queue = null } = {}) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.queue = queue;
  }
}

/**
 * Words for a failure, in the page's language; a code that the page has no words for is shown with the server's own message.
 *
 * @param {Problem|Error} error what went wrong
 * @param {Record<string, string|number>} values what replaces `{name}` and the like
 * @returns {{code: string, title: string, text: string}}
 */
export function explain(error, values = {}) {
  const code = error.code ?? "unexpected";
  const key = `failure.${code}`;
  const how = has(`${key}.how`) ? t(`${key}.how`, { ...values, message: error.message }) : error.message;
  return { code, title: t(has(key) ? key : "failure.unexpected"), text: how || t("failure.unexpected.how") };
}

/** A problem with the words this page has for its code. */
export function problem(code, detail = {}) {
  const words = [`failure.${code}`, `failure.${code}.how`].filter(has).map((key) => t(key));
  return new Problem(code, words.join(". ") || code, detail);
}

/** Codes by which servers say "come back later". */
const BUSY = new Set(["server_full", "rate_limited", "too_many_requests"]);

async function problemOf(response) {
  let code = `http_${response.status}`;
  let message = t("failure.http", { status: response.status });
  let queue = null;
  try {
    const body = await response.json();
    const { error } = body;
    queue = body.queue ?? null;
    code = error.code ?? code;
    message = error.message ?? message;
  } catch {
    // A proxy's page in place of our JSON: the status is all there is to tell.
  }
  return new Problem(code, message, {
    status: response.status,
    retryAfterS: Number(response.headers.get("Retry-After")) || 0,
    queue,
  });
}

/** The server's HTTP side. All methods reject with a `Problem`. */
export class Api {
  /** @param {string|URL} base URL of the folder the API lives in, with a trailing slash */
  constructor(base) {
    this.base = new URL(base);
  }

  /**
   * Asked for before every offer: what lets this page in. A page of a server that asks for something puts a function of its own here.
   * @returns {Promise<{token?: string, ice_servers?: RTCIceServer[]}>} the relays in place of those that were known
   */
  async admission() {
    return {};
  }

  /** Exchange what a page has for a token that opens one session. */
  tokens(body) {
    return this.#call("POST", "tokens", body);
  }

  /** Absolute URL of an API path. */
  url(path) {
    return new URL(path, this.base).href;
  }

  /** Options of the server; the defaults when it offers none. */
  async config() {
    return { ...DEFAULT_CONFIG, ...(await this.#call("GET", "config.json")) };
  }

  /** @returns {Promise<Array<{name: string, title: string, clips: Array<{name: string, loop: boolean}>}>>} */
  async avatars() {
    const list = await this.#call("GET", "avatars");
    return Array.isArray(list) ? list : list.avatars;
  }

  /** What a page of another site needs to show the portrait: addresses, and the script's integrity hash. */
  snippet() {
    return this.#call("GET", "embed/snippet");
  }

  /** What a broadcast shows: `{id, avatar, title, width, height, viewers, most_viewers}`. Rejects with `broadcast_not_found`. */
  broadcast(id) {
    return this.#call("GET", `broadcasts/${encodeURIComponent(id)}`);
  }

  /** URL of an avatar's still picture. */
  poster(name) {
    return this.url(`avatars/${encodeURIComponent(name)}/poster.jpg`);
  }

  /** URL of an avatar's small moving picture. */
  thumbnail(name) {
    return this.url(`avatars/${encodeURIComponent(name)}/thumbnail.webp`);
  }

  /** Whether avatars can be made on this server, and more about it. */
  studio() {
    return this.#call("GET", "studio.json");
  }

  /**
   * Exchange an offer for an answer.
   * @param {{sdp: string, type: string, avatar?: string, quality?: "auto"|number, token?: string, ticket?: string, session_id?: string}} offer
   *   ticket: "" waits in line when the server is full; session_id: of a session that is to go on with this connection
   * @param {AbortSignal} signal aborts the request
   * @returns {Promise<{sdp: string, type: string, session_id: string, resumed?: boolean}>}
   * @throws {Problem} `server_full` when there is no seat, `server_gone` when nobody answers
   */
  async offer(offer, signal) {
    try {
      return await this.#call("POST", "offer", offer, signal);
    } catch (error) {
      const busy = BUSY.has(error.code) || ["http_429", "http_503"].includes(error.code);
      if (busy) throw problem(error.code === "too_many_requests" ? error.code : "server_full", error);
      throw error;
    }
  }

  /** Whether there still is a session; true, too, when nobody answers: then it is not the session that is missing. */
  async lives(session) {
    try {
      await this.#call("GET", `sessions/${session}/quality`);
    } catch (error) {
      return error.status !== 404;
    }
    return true;
  }

  /** Speak a text. Rejects with `text_empty`, `text_too_long`, … */
  say(session, text) {
    return this.#call("POST", `sessions/${session}/say`, { text });
  }

  /** Have a text answered. Rejects with `text_empty`, `text_too_long`, `conversation_missing`, … */
  ask(session, text) {
    return this.#call("POST", `sessions/${session}/ask`, { text });
  }

  /** Stop speaking at once. */
  interrupt(session) {
    return this.#call("POST", `sessions/${session}/interrupt`);
  }

  /**
   * Speak a sound file.
   * @param {string} session
   * @param {Blob} file
   * @param {{onProgress?: (fraction: number) => void, signal?: AbortSignal}} options
   * @returns {Promise<object>} the server's answer, or rejects with `audio_unreadable`, `audio_too_long`, …
   */
  audio(session, file, options) {
    return this.#upload(`sessions/${session}/audio`, file, options);
  }

  /**
   * Have the voice of a sound file changed.
   * @param {string} session whoever has one may, also where the server asks for a key
   * @param {Blob} file
   * @param {{pitch: number, formant: number, conversion: string}} voice
   * @param {{onProgress?: (fraction: number) => void, signal?: AbortSignal}} options of the upload
   * @returns {Promise<{id: string, state: string, progress: number}>}
   */
  convert(session, file, { pitch, formant, conversion }, options) {
    return this.#upload(`conversions?${new URLSearchParams({ pitch, formant, conversion })}`, file, { ...options, bearer: session });
  }

  /** How far a conversion is. */
  conversion(id, signal) {
    return this.#call("GET", `conversions/${id}`, undefined, signal);
  }

  /** Give up a conversion, or what came of it. */
  forgetConversion(id) {
    return this.#call("DELETE", `conversions/${id}`);
  }

  /** Speak what came of a conversion. */
  speakConversion(session, id) {
    return this.#call("POST", `sessions/${session}/audio?conversion=${encodeURIComponent(id)}`);
  }

  /** XMLHttpRequest, because fetch cannot tell how much of an upload has gone. */
  #upload(path, file, { onProgress, signal, bearer } = {}) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", this.url(path));
      request.responseType = "json";
      request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
      if (bearer) request.setRequestHeader("Authorization", `Bearer ${bearer}`);
      request.upload.onprogress = (e) => e.lengthComputable && onProgress?.(e.loaded / e.total);
      request.onerror = () => reject(problem("server_gone"));
      request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
      request.onload = () => {
        if (request.status < 300) return resolve(request.response ?? {});
        const error = request.response?.error;
        reject(
          new Problem(error?.code ?? `http_${request.status}`, error?.message ?? t("failure.http", { status: request.status }), {
            status: request.status,
          }),
        );
      };
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(file);
    });
  }

  /** Give the seat back; works while the page is going away and never rejects. */
  close(session) {
    const url = this.url(`sessions/${session}/close`);
    if (!navigator.sendBeacon?.(url)) fetch(url, { method: "POST", keepalive: true }).catch(() => {});
  }

  async #call(method, path, body, signal) {
    let response;
    try {
      response = await fetch(this.url(path), {
        method,
        signal,
        headers: body ? { "Content-Type": "application/json" } : {},
        body: body ? JSON.stringify(body) : undefined,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw problem("server_gone");
    }
    if (!response.ok) throw await problemOf(response);
    return response.status === 204 ? {} : response.json();
  }
}

/**
 * Read one message of the data channel.
 * @param {string} data
 * @returns {{type: string}|null} null for anything that is not an event
 */
export function parseEvent(data) {
  try {
    const event = JSON.parse(data);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}
