/**
 * `<talking-head>`: a living portrait on any page, in a frame that belongs to the server it comes from.
 *
 *     <script src="https://example.org/embed/v1.0.0.js" integrity="sha384-…" crossorigin="anonymous" async></script>
 *     <talking-head avatar="maya"></talking-head>
 *
 * Attributes
 *   avatar     whose portrait; the server's first one when left out
 *   src        the server; where this script came from when left out
 *   key        the embed's public key, where the server asks for one
 *   mic        on, hold (heard while a button is held) or off; on when left out
 *   muted      begin without sound
 *   captions   off hides them
 *   background what is behind the person: transparent (the page itself), blur or #rrggbb; as filmed when left out
 *   lang       of the controls; the page's own when left out
 *   autostart  the picture moves at once; otherwise when somebody begins
 *   bubble     a round button in the corner of the window ("left": the other one) that opens the portrait
 *
 * Methods; each returns a promise that rejects with an Error with a `code`
 *   start(), stop(), say(text), ask(text), interrupt(), setAvatar(name), setMuted(muted), setMicrophone(on)
 *
 * Events bubble; their names begin with "talking-head:"
 *   ready, state {state, reason}, speaking {speaking}, user_speaking {speaking}, user_transcript {text, final}, avatar_transcript {text},
 *   interrupted {played_text}, sound {muted}, microphone {state}, bubble {open}, ending {seconds_left}, metrics {stages_ms}, error {code, message};
 *   an error is also written to the console, unless its default is prevented.
 *
 * Invariants: speaks with the window of its own frame only, and with the exact origin of `src`; a file of this name never
 * changes, so that its integrity hash can be pinned; needs nothing of the page's security policy but frame-src.
 */
(() => {
  "use strict";

  const SOURCE = "talking-head";
  const VERSION = 1;
  /** A frame that shows our page says so long before. */
  const SILENCE_MS = 4000;
  const LOAD_MS = 20_000;
  const FEATURES = ["microphone", "autoplay", "fullscreen"];
  /** Attributes that are part of the frame's address: another value is another frame. */
  const ADDRESS = ["src", "key", "mic", "lang", "bubble", "background"];
  const script = document.currentScript?.src;

  const STYLE = `
    :host { display: inline-block; position: relative; inline-size: 22.5rem; block-size: 30rem; max-inline-size: 100%; overflow: clip; border-radius: 1.25rem; background: #8883; color-scheme: light dark; }
    :host([hidden]) { display: none; }
    :host([background="transparent"]:not([bubble])) { background: none; border-radius: 0; }
    iframe { display: block; inline-size: 100%; block-size: 100%; border: 0; }
    .card { box-sizing: border-box; position: absolute; inset: 0; overflow: auto; padding: 1.25rem; background: Canvas; color: CanvasText; font: 0.9375rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
    .card strong { display: block; margin-block-end: 0.5rem; }
    :host([bubble]) { position: fixed; z-index: 2147483000; inset: auto max(1rem, env(safe-area-inset-right)) max(1rem, env(safe-area-inset-bottom)) auto; inline-size: 4.5rem; block-size: 4.5rem; border-radius: 50%; box-shadow: 0 0.25rem 1.25rem #0005; }
    :host([bubble="left"]) { inset-inline: max(1rem, env(safe-area-inset-left)) auto; }
    :host([bubble][data-open]) { inline-size: min(22.5rem, 100vw - 2rem); block-size: min(32rem, 100dvh - 2rem); border-radius: 1.25rem; box-shadow: 0 1rem 3rem #0006; animation: open 0.2s ease-out; }
    @keyframes open { from { opacity: 0; transform: translateY(1rem); } }
    @media (prefers-reduced-motion: reduce) { :host([bubble][data-open]) { animation: none; } }
  `;

  const failure = (code, message) => Object.assign(new Error(message), { code });

  class TalkingHead extends HTMLElement {
    static observedAttributes = [...ADDRESS, "avatar", "muted", "captions"];

    #root = this.attachShadow({ mode: "closed" });
    #frame = null;
    #server = null;
    #count = 0;
    #calls = new Map();
    #ready = null;
    #told = {};
    #watch = 0;
    #forbidden = false;
    #reflecting = false;

    constructor() {
      super();
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      this.#root.adoptedStyleSheets = [sheet];
    }

    connectedCallback() {
      addEventListener("message", this.#hear);
      document.addEventListener("securitypolicyviolation", this.#violated);
      this.#build();
    }

    disconnectedCallback() {
      removeEventListener("message", this.#hear);
      document.removeEventListener("securitypolicyviolation", this.#violated);
      this.#leave(failure("removed", "The element was taken off the page."));
      this.#server = null;
    }

    attributeChangedCallback(name, before, now) {
      if (!this.#server || this.#reflecting || before === now) return;
      if (ADDRESS.includes(name)) this.#build();
      else if (!this.#frame) return;
      // Failures are events; nobody waits for an attribute.
      else if (name === "avatar") this.#call("set_avatar", { avatar: now }).catch(() => {});
      else if (name === "muted") this.#call("set_muted", { muted: now !== null }).catch(() => {});
      else this.#call("set_captions", { captions: now !== "off" }).catch(() => {});
    }

    /** "new", "connecting", "live", "reconnecting", "waiting", "stopped" or "closed". */
    get state() {
      return this.#told.state?.state ?? "new";
    }

    /** True while something is spoken. */
    get speaking() {
      return this.#told.speaking?.speaking ?? false;
    }

    /** Connect, with sound and microphone; resolves when the portrait is live. Call it from a click: browsers want one for sound. */
    start() {
      return this.#call("start");
    }

    /** End the session and let the microphone go. */
    stop() {
      return this.#call("stop");
    }

    /** Speak a text word by word. */
    say(text) {
      return this.#call("say", { text });
    }

    /** Have a text answered. */
    ask(text) {
      return this.#call("ask", { text });
    }

    /** Silence now. */
    interrupt() {
      return this.#call("interrupt");
    }

    async setAvatar(name) {
      await this.#call("set_avatar", { avatar: name });
      this.#reflecting = true;
      this.setAttribute("avatar", name);
      this.#reflecting = false;
    }

    setMuted(muted) {
      return this.#call("set_muted", { muted: Boolean(muted) });
    }

    setMicrophone(on) {
      return this.#call("set_microphone", { on: Boolean(on) });
    }

    #build() {
      this.#leave(failure("restarted", "The portrait was set up anew."));
      const address = this.getAttribute("src") ?? (script ? new URL("..", script).href : "");
      if (!URL.canParse(address, document.baseURI)) return this.#fail("src_missing", "Which server?", "The attribute src names the server of the portrait.");
      const server = new URL(address, document.baseURI);
      if (!server.pathname.endsWith("/")) server.pathname += "/";
      const page = new URL("embed", server);
      for (const name of ["avatar", "key", "mic", "captions", "background"]) if (this.hasAttribute(name)) page.searchParams.set(name, this.getAttribute(name));
      for (const name of ["muted", "autostart", "bubble"]) if (this.hasAttribute(name)) page.searchParams.set(name, "");
      const language = this.closest("[lang]")?.lang;
      if (language) page.searchParams.set("lang", language);
      const frame = document.createElement("iframe");
      frame.allow = FEATURES.filter((feature) => feature !== "microphone" || this.getAttribute("mic") !== "off").join("; ");
      frame.referrerPolicy = "origin";
      frame.title = this.title || "Live portrait";
      frame.src = page.href;
      frame.addEventListener("load", () => {
        if (this.#told.ready || this.#told.error) return;
        this.#post("hello");
        this.#expect(SILENCE_MS);
      });
      this.#server = server;
      this.#frame = frame;
      let settle;
      this.#ready = new Promise((resolve, reject) => (settle = { resolve, reject }));
      this.#ready.settle = settle;
      this.#ready.catch(() => {});
      this.#root.replaceChildren(frame);
      this.#expect(LOAD_MS);
      return undefined;
    }

    /** The frame is gone, or nothing comes of it. */
    #leave(why) {
      clearTimeout(this.#watch);
      this.#ready?.settle?.reject(why);
      this.#ready = Promise.reject(why);
      this.#ready.catch(() => {});
      for (const { reject } of this.#calls.values()) reject(why);
      this.#calls.clear();
      this.#frame?.remove();
      this.#frame = null;
      this.#told = {};
      this.#forbidden = false;
      this.removeAttribute("data-open");
    }

    #expect(ms) {
      clearTimeout(this.#watch);
      this.#watch = setTimeout(() => this.#diagnose(), ms);
    }

    /** Nothing answers in the frame: find out why. */
    async #diagnose() {
      const { origin, href } = this.#server;
      if (this.#forbidden) {
        return this.#fail("page_policy", "This page forbids the portrait's frame", `Its Content-Security-Policy must list ${origin} under frame-src.`);
      }
      const frame = this.#frame;
      const answers = await fetch(new URL("healthz", href), { mode: "no-cors", cache: "no-store" }).then(() => true, () => false);
      if (frame !== this.#frame || this.#told.ready) return undefined;
      if (!answers) {
        return this.#fail("server_gone", "The portrait's server does not answer", `Is ${href} the right address, is the server running, and does this page's Content-Security-Policy allow it?`);
      }
      const [avatar, here] = [this.getAttribute("avatar") ?? "AVATAR", location.origin];
      const listed = `python -m server embeds add ${avatar} --origin ${here}`;
      const text = here === "null" ? "A page opened from a file cannot show it: open it through a web server, such as python -m http.server." : `Put ${here} on the server's list: ${listed}, and its key into the attribute key; or start it with --allowed-origins ${here}.`;
      return this.#fail("origin_refused", "The portrait's server refuses this page", text);
    }

    /** Say in the place of the portrait, in an event and on the console what is wrong. */
    #fail(code, title, text) {
      const card = document.createElement("div");
      const strong = document.createElement("strong");
      card.className = "card";
      card.setAttribute("role", "alert");
      strong.textContent = title;
      card.append(strong, text);
      this.#leave(failure(code, `${title}. ${text}`));
      this.#root.replaceChildren(card);
      this.toggleAttribute("data-open", this.hasAttribute("bubble"));
      this.#tell("error", { code, message: `${title}. ${text}` });
    }

    #violated = ({ blockedURI, effectiveDirective }) => {
      if (!this.#frame || !/^(frame|child|default)-src/.test(effectiveDirective) || !blockedURI.startsWith(this.#server.origin)) return;
      this.#forbidden = true;
      this.#expect(0);
    };

    #post(type, data, id) {
      this.#frame.contentWindow?.postMessage({ source: SOURCE, v: VERSION, type, ...(id ? { id } : {}), data }, this.#server.origin);
    }

    async #call(type, data = {}) {
      if (!this.#ready) throw failure("not_on_page", "The element is not on a page yet.");
      await this.#ready;
      const id = `c${(this.#count += 1)}`;
      return new Promise((resolve, reject) => {
        this.#calls.set(id, { resolve, reject });
        this.#post(type, data, id);
      });
    }

    #hear = ({ source, origin, data }) => {
      if (!this.#frame || source !== this.#frame.contentWindow || origin !== this.#server.origin) return;
      if (data?.source !== SOURCE || data.v !== VERSION || typeof data.type !== "string") return;
      const { type, id, data: detail } = data;
      if (id !== undefined) {
        const call = this.#calls.get(id);
        this.#calls.delete(id);
        if (type === "result") call?.resolve(detail);
        else call?.reject(failure(detail.code, detail.message));
        return;
      }
      const before = this.#told[type];
      this.#told[type] = detail;
      // Both are told again to whoever says hello.
      if (before && (type === "ready" || (type === "error" && !this.#told.ready))) return;
      if (type === "ready") this.#ready.settle.resolve();
      else if (type === "error" && !this.#told.ready) this.#ready.settle.reject(failure(detail.code, detail.message));
      if (type === "bubble") this.toggleAttribute("data-open", detail.open);
      // The frame explains itself; it needs room for that.
      if (type === "error" && !this.#told.ready) this.toggleAttribute("data-open", this.hasAttribute("bubble"));
      clearTimeout(this.#watch);
      this.#tell(type, detail);
      // The server gives a frame that is made again another token.
      if (type === "error" && detail.code === "page_stale") this.#build();
    };

    #tell(type, detail) {
      const event = new CustomEvent(`talking-head:${type}`, { detail, bubbles: true, composed: true, cancelable: type === "error" });
      if (this.dispatchEvent(event) && type === "error") console.warn(`<talking-head>: ${detail.message} (${detail.code})`);
    }
  }

  if (!customElements.get("talking-head")) customElements.define("talking-head", TalkingHead);
})();
