/**
 * The settings panel and the developer's readout: faces, movements, microphones, quality, volume, and how good the
 * connection is.
 *
 * Place in the flow: reads and sets a `TalkingHead` and a `Microphone`; nothing depends on it. Figures are fetched only
 * while the page is visible.
 */

const INTERVAL_MS = 1000;

/** Why a face is restored less than was asked for; other reasons need no words. */
const SHORT = {
  preparing: "The portrait is still being restored.",
  load: "There is no time for more right now.",
  late: "There is no time for more right now.",
  recovered: "On its way up again.",
  failed: "Restoring failed; the server's log says why.",
};

const $ = (id) => document.getElementById(id);

/**
 * A word for a connection, from its figures over the last second.
 * @returns {"Good"|"Fair"|"Weak"}
 */
export function quality(now, before) {
  const received = now.packets_received - before.packets_received;
  const lost = now.packets_lost - before.packets_lost;
  const loss = lost / Math.max(1, received + lost);
  const rtt = now.rtt_ms ?? 0;
  if (loss > 0.08 || rtt > 400) return "Weak";
  // A freeze without loss is a busy machine rather than a bad line.
  return loss > 0.02 || rtt > 150 || now.freezes > before.freezes ? "Fair" : "Good";
}

/** `[term, value]` pairs as the rows of a dl; values go in as text. */
function rows(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([term, value]) => {
      const row = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = value ?? "–";
      row.append(dt, dd);
      return row;
    }),
  );
}

export class Panel {
  #head;
  #microphone;
  #before = null;
  #debug;
  #metrics = {};
  #latency = {};
  #onQuality;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {import("./microphone.js").Microphone} microphone
   * @param {{debug: boolean, chooseFace: (name: string) => void, chooseMode: (mode: string) => void,
   *   chooseMicrophone: (id: string) => void,
   *   onQuality: (word: "Good"|"Fair"|"Weak") => void}} options onQuality is told once a second
   */
  constructor(head, microphone, { debug, chooseFace, chooseMode, chooseMicrophone, onQuality }) {
    this.#onQuality = onQuality;
    this.#head = head;
    this.#microphone = microphone;
    this.#debug = debug;
    this.chooseFace = chooseFace;
    $("debug").hidden = !debug;
    $("volume").addEventListener("input", (e) => (head.volume = Number(e.target.value)));
    $("mode").addEventListener("change", (e) => chooseMode(e.target.value));
    head.addEventListener("latency", ({ detail }) => (this.#latency = detail.stages_ms));
    $("devices").addEventListener("change", (e) => chooseMicrophone(e.target.value));
    $("quality").addEventListener("change", ({ target: { value } }) => head.setQuality(value === "auto" ? value : Number(value)));
    head.addEventListener("quality", ({ detail }) => this.#showQuality(detail));
    $("settings").addEventListener("toggle", (e) => e.newState === "open" && this.refresh());
    for (const [event, on] of [["action_started", true], ["action_ended", false]])
      head.addEventListener(event, ({ detail }) => this.#mark(detail.name, on));
    head.addEventListener("state", () => this.#mark());
    microphone.addEventListener("devices", () => this.refreshDevices());
    head.addEventListener("metrics", ({ detail }) => (this.#metrics = detail));
    setInterval(() => this.#tick(), INTERVAL_MS);
  }

  get open() {
    return $("settings").matches(":popover-open");
  }

  async refresh() {
    await Promise.all([this.refreshDevices(), this.#tick()]);
  }

  /** Faces to choose from; nothing is shown while there is no choice. */
  showFaces(avatars, current) {
    $("faces").hidden = avatars.length < 2;
    $("faces-list").replaceChildren(
      ...avatars.map(({ name, title }) => {
        const label = document.createElement("label");
        const input = Object.assign(document.createElement("input"), { type: "radio", name: "face", value: name });
        input.checked = name === current;
        input.addEventListener("change", () => this.chooseFace(name));
        const img = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", src: this.#head.api.poster(name) });
        label.append(input, img, title ?? name);
        return label;
      }),
    );
  }

  /** Let the quality be chosen, where the server can restore faces. */
  offerQuality({ restores, quality }) {
    $("quality-label").hidden = !restores;
    $("quality").value = String(quality);
  }

  /** Let it be chosen what becomes of the microphone; where nobody hears it says why. */
  offerModes({ hears, conversation_note: note }) {
    $("mode").value = this.#head.mode === "converse" ? "converse" : "mirror";
    $("mode-state").textContent = hears ? "" : note;
  }

  #showQuality({ asked, level, reason }) {
    $("quality").value = String(asked);
    $("quality-state").textContent = reason in SHORT ? `Now ${level}. ${SHORT[reason]}` : asked === "auto" ? `Now ${level}.` : "";
  }

  /** Movements the face can be asked for; listening is up to the microphone. */
  showMoves(clips) {
    const moves = clips.filter(({ name }) => name !== "listening");
    $("moves").hidden = !moves.length;
    $("moves-list").replaceChildren(
      ...moves.map(({ name }) => {
        const button = Object.assign(document.createElement("button"), { type: "button", className: "pill toggle" });
        button.dataset.name = name;
        button.textContent = name[0].toUpperCase() + name.slice(1).replace(/[-_]/g, " ");
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () =>
          button.getAttribute("aria-pressed") === "true" ? this.#head.stopAction() : this.#head.act(name),
        );
        return button;
      }),
    );
  }

  /** Show which movement plays; without a name, that none does. */
  #mark(name, on = false) {
    for (const button of $("moves-list").children)
      if (!name || button.dataset.name === name) button.setAttribute("aria-pressed", String(on));
  }

  async refreshDevices() {
    const devices = await this.#microphone.devices();
    const options = devices.map(({ id, label, current }) => {
      const option = new Option(label, id);
      option.selected = current;
      return option;
    });
    $("devices").replaceChildren(...(options.length ? options : [new Option("Press Start talking first", "")]));
    $("devices").disabled = !options.length;
  }

  async #tick() {
    if (document.hidden) return;
    const stats = await this.#head.stats();
    if (!stats) {
      rows($("figures"), [["Quality", "Not connected"]]);
      this.#before = null;
      return;
    }
    const before = this.#before ?? stats;
    this.#before = stats;
    const word = quality(stats, before);
    this.#onQuality(word);
    const ms = (value) => (value === null ? null : `${value} ms`);
    const kbit = Math.round(((stats.bytes_received - before.bytes_received) * 8) / INTERVAL_MS);
    rows($("figures"), [
      ["Quality", word],
      ["Round trip", ms(stats.rtt_ms ?? stats.latency_ms)],
      ["Pictures a second", stats.fps],
      ["Freezes", stats.freezes],
    ]);
    if (!this.#debug) return;
    rows($("debug"), [
      ["video", `${stats.codec} ${stats.width}×${stats.height} @ ${stats.fps ?? "–"}`],
      ["rate", `${kbit} kbit/s`],
      ["freezes / dropped", `${stats.freezes} / ${stats.frames_dropped}`],
      ["buffer video / audio", `${stats.video_buffer_ms} / ${stats.audio_buffer_ms} ms`],
      ["rtt media / channel", `${stats.rtt_ms} / ${stats.latency_ms} ms`],
      ["lost", `${stats.packets_lost} of ${stats.packets_received + stats.packets_lost}`],
      ["route", stats.route],
      ...Object.entries(this.#latency).map(([stage, ms]) => [`turn: ${stage.replace("_", " ")}`, `${ms} ms`]),
      ...Object.entries(this.#metrics)
        .filter(([key, value]) => key !== "type" && ["number", "string"].includes(typeof value))
        .map(([key, value]) => [key, value]),
    ]);
  }
}
