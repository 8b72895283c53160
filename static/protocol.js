/**
 * What travels between the page and the server, and the words for everything that can go wrong.
 *
 * Place in the flow: the lowest module of the page. It knows URLs, messages and sentences; it knows no
 * RTCPeerConnection and no document. `peer.js` and `talking-head.js` call it, `app.js` shows its sentences.
 *
 * Wire, in short (the server's README has the whole table):
 *   POST   offer                     {sdp, type, avatar?, quality?} -> {sdp, type, session_id}
 *   POST   sessions/{id}/say         {text}
 *   POST   sessions/{id}/ask         {text}
 *   POST   sessions/{id}/audio       the bytes of a sound file
 *   POST   sessions/{id}/interrupt
 *   POST   sessions/{id}/close       also by sendBeacon while the page goes away
 *   GET    avatars, avatars/{name}/poster.jpg, config.json
 *   errors {error: {code, message}}  with a fitting status and, when busy, Retry-After
 *   data channel "visavis"           commands say, ask, interrupt, mode, push_to_talk, listening, act, stop_action, quality,
 *                                    ping; events state, speaking, caption, viseme, action_started, action_ended, quality,
 *                                    user_speaking, transcript, turn, latency, metrics, error, pong
 */

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
  ice_servers: [],
});

export const AUDIO_TYPES = ".wav,.mp3,.flac,.ogg,.oga,.opus,.m4a,.aac,.webm,audio/*";

/** A failure with a stable code; `message` is a sentence for people. */
export class Problem extends Error {
  /**
   * @param {string} code stable snake_case identifier
   * @param {string} message one or two sentences, with what to do
   * @param {{status?: number, retryAfterS?: number}} detail HTTP status; seconds to wait before another try
   */
  constructor(code, message, { status = 0, retryAfterS = 0 } = {}) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Titles, explanations and the way out, by code. `{name}` is the avatar's name, `{message}` what the error itself says.
 * A code that is not listed is shown with the server's own message.
 */
const WORDS = {
  microphone_denied: [
    "The microphone is blocked",
    "Click the icon left of the address, allow the microphone, then press Start talking again. Typing and files work without it.",
  ],
  microphone_missing: [
    "No microphone found",
    "Plug one in, or switch it on, and press Start talking again. Typing and files work without it.",
  ],
  microphone_busy: [
    "The microphone is in use",
    "Another program holds it. Close that program, then press Start talking again.",
  ],
  microphone_insecure: [
    "Microphones need a secure page",
    "Open this page through https:// or on http://localhost. Typing and files work here too.",
  ],
  microphone_policy: [
    "This frame may not use the microphone",
    "The page around it must say allow=\"microphone; autoplay\" on its iframe. Typing and files work without it.",
  ],
  microphone_lost: [
    "The microphone was unplugged",
    "Plug it back in or choose another one in Settings, then press Start talking.",
  ],
  sound_blocked: ["Sound is off", "The browser wants a click first: press the loudspeaker."],
  server_full: ["Every seat is taken", "{name} is with as many people as this machine can serve. This page keeps trying."],
  server_gone: ["The server does not answer", "It may be starting, or your network is away."],
  connection_lost: ["Reconnecting", "The connection broke off. This takes a moment."],
  no_route: [
    "No route for sound and picture",
    "The page loads, but media cannot get through. A firewall, a VPN or a container may be blocking UDP: allow UDP to this server, or set up TURN.",
  ],
  session_ended: ["The session has ended", "{message} Start again whenever you like."],
  session_ending: ["The session ends in half a minute", "The longest time a session may last is almost over. You can start again at once."],
  webrtc_missing: ["This browser cannot show live video", "WebRTC is switched off or missing. Try a current Chrome, Edge, Firefox or Safari."],
  avatar_unknown: ["This face does not exist", "Check the name in the address, or choose another face in Settings."],
  file_not_audio: ["That is not a sound file", "Drop a wav, mp3, flac, ogg or m4a file."],
  file_too_large: ["The file is too large", "This server takes at most {mb} MB. Choose a shorter piece or an mp3."],
  audio_unreadable: ["That is not a sound file", "{message}"],
  audio_empty: ["There is no sound in this file", "{message}"],
  audio_too_long: ["That is too long", "{message}"],
  body_too_large: ["The file is too large", "{message}"],
  text_too_long: ["That is too long", "{message}"],
  queue_full: ["One thing after the other", "{message}"],
  service_unreachable: ["A service does not answer", "{message}"],
  service_timeout: ["A service takes too long", "{message}"],
  service_rejected_key: ["A service refused its key", "{message}"],
  service_rate_limited: ["A service has had enough for now", "{message}"],
  model_not_chosen: ["Which language model?", "{message}"],
  not_connected: ["Not connected yet", "Wait for the portrait to come alive, then send it again."],
};

/**
 * Words for a failure.
 *
 * @param {Problem|Error} error what went wrong
 * @param {Record<string, string|number>} values what replaces `{name}` and the like
 * @returns {{code: string, title: string, text: string}}
 */
export function explain(error, values = {}) {
  const code = error.code ?? "unexpected";
  const [title, text] = WORDS[code] ?? ["That did not work", error.message || "Something unexpected happened. Reload the page to start over."];
  const all = { message: error.message, ...values };
  return { code, title: fill(title, all), text: fill(text, all) };
}

function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (all, key) => String(values[key] ?? all)).trim();
}

/** A problem with the words this page has for its code. */
export function problem(code, detail = {}) {
  return new Problem(code, WORDS[code]?.join(". ") ?? code, detail);
}

/** Codes by which servers say "come back later". */
const BUSY = new Set(["server_full", "rate_limited"]);

async function problemOf(response) {
  let code = `http_${response.status}`;
  let message = `The server answered ${response.status}.`;
  try {
    const { error } = await response.json();
    code = error.code ?? code;
    message = error.message ?? message;
  } catch {
    // A proxy's page in place of our JSON: the status is all there is to tell.
  }
  return new Problem(code, message, {
    status: response.status,
    retryAfterS: Number(response.headers.get("Retry-After")) || 0,
  });
}

/** The server's HTTP side. All methods reject with a `Problem`. */
export class Api {
  /** @param {string|URL} base URL of the folder the API lives in, with a trailing slash */
  constructor(base) {
    this.base = new URL(base);
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

  /** URL of an avatar's still picture. */
  poster(name) {
    return this.url(`avatars/${encodeURIComponent(name)}/poster.jpg`);
  }

  /**
   * Exchange an offer for an answer.
   * @param {{sdp: string, type: string, avatar?: string, quality?: "auto"|number}} offer
   * @param {AbortSignal} signal aborts the request
   * @returns {Promise<{sdp: string, type: string, session_id: string}>}
   * @throws {Problem} `server_full` when there is no seat, `server_gone` when nobody answers
   */
  async offer(offer, signal) {
    try {
      return await this.#call("POST", "offer", offer, signal);
    } catch (error) {
      const busy = BUSY.has(error.code) || ["http_429", "http_503"].includes(error.code);
      if (busy) throw problem("server_full", { status: error.status, retryAfterS: error.retryAfterS });
      throw error;
    }
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
   *
   * XMLHttpRequest, because fetch cannot tell how much of an upload has gone.
   * @param {string} session
   * @param {Blob} file
   * @param {{onProgress?: (fraction: number) => void, signal?: AbortSignal}} options
   * @returns {Promise<object>} the server's answer, or rejects with `audio_unreadable`, `audio_too_long`, …
   */
  audio(session, file, { onProgress, signal } = {}) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", this.url(`sessions/${session}/audio`));
      request.responseType = "json";
      request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
      request.upload.onprogress = (e) => e.lengthComputable && onProgress?.(e.loaded / e.total);
      request.onerror = () => reject(problem("server_gone"));
      request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
      request.onload = () => {
        if (request.status < 300) return resolve(request.response ?? {});
        const error = request.response?.error;
        reject(
          new Problem(error?.code ?? `http_${request.status}`, error?.message ?? `The server answered ${request.status}.`, {
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
