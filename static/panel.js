/**
 * The settings panel's figures and the developer's readout: quality, volume, how good the connection is, and where the time of the last answer went.
 * What is chosen has modules of its own: `faces.js`, `devices.js`, `display.js`, `conversation.js`, `voice.js`, `transcript-view.js`.
 *
 * Place in the flow: reads and sets a `TalkingHead`; nothing depends on it. Figures are fetched only while the page is visible.
 */

import { has, language, t } from "./language.js";
import { Plots } from "./plots.js";
import { drawWaterfall } from "./waterfall.js";

const INTERVAL_MS = 1000;

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
  #before = null;
  #plots;
  #metrics = {};
  #quality = { asked: "auto", level: null, reason: "" };
  #stages = null;
  #onQuality;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {{debug: boolean, opened: () => void, onQuality: (word: "Good"|"Fair"|"Weak") => void}} options
   *   onQuality is told once a second
   */
  constructor(head, { debug, opened, onQuality }) {
    this.#head = head;
    this.#onQuality = onQuality;
    this.#plots = debug ? new Plots($("debug-plots")) : null;
    $("debug").hidden = !debug;
    $("volume").addEventListener("input", (e) => (head.volume = Number(e.target.value)));
    $("quality").addEventListener("change", ({ target: { value } }) => head.setQuality(value === "auto" ? value : Number(value)));
    $("settings").addEventListener("toggle", (e) => {
      if (e.newState !== "open") return;
      opened();
      this.#tick();
    });
    head.addEventListener("latency", ({ detail }) => this.#showLatency((this.#stages = detail.stages_ms)));
    head.addEventListener("quality", ({ detail }) => this.#showQuality((this.#quality = detail)));
    head.addEventListener("metrics", ({ detail }) => (this.#metrics = detail));
    language.addEventListener("change", () => {
      this.#showQuality(this.#quality);
      if (this.#stages) this.#showLatency(this.#stages);
    });
    setInterval(() => this.#tick(), INTERVAL_MS);
  }

  get open() {
    return $("settings").matches(":popover-open");
  }

  /** Let the quality be chosen, where the server can restore faces. */
  offerQuality({ restores, quality }) {
    $("quality-label").hidden = !restores;
    $("quality").value = String(quality);
  }

  #showLatency(stages) {
    $("latency").hidden = false;
    drawWaterfall($("latency-steps"), stages);
    if (this.#plots) drawWaterfall($("debug-steps"), stages);
  }

  #showQuality({ asked, level, reason }) {
    const now = level === null ? "" : t("quality.now", { level });
    const why = has(`quality.${reason}`) ? t(`quality.${reason}`) : "";
    $("quality").value = String(asked);
    $("quality-state").textContent = why ? `${now} ${why}` : asked === "auto" ? now : "";
  }

  async #tick() {
    if (document.hidden) return;
    const stats = await this.#head.stats();
    if (!stats) {
      rows($("figures"), [[t("connection.quality"), t("connection.none")]]);
      this.#before = null;
      this.#plots?.add({});
      return;
    }
    const before = this.#before ?? stats;
    this.#before = stats;
    const word = quality(stats, before);
    this.#onQuality(word);
    const ms = (value) => (value === null ? null : `${value} ms`);
    rows($("figures"), [
      [t("connection.quality"), t(`connection.${word}`)],
      [t("connection.rtt"), ms(stats.rtt_ms ?? stats.latency_ms)],
      [t("connection.fps"), stats.fps],
      [t("connection.freezes"), stats.freezes],
    ]);
    if (this.#plots) this.#debug(stats, Math.round(((stats.bytes_received - before.bytes_received) * 8) / INTERVAL_MS));
  }

  /** Names of figures are the protocol's own, in every language. */
  #debug(stats, kbit) {
    this.#plots.add({ fps: stats.fps, kbit, jitter: stats.jitter_ms, model: this.#metrics.render_ms, level: this.#quality.level });
    rows($("debug-figures"), [
      ["video", `${stats.codec} ${stats.width}×${stats.height} @ ${stats.fps ?? "–"}`],
      ["freezes / dropped", `${stats.freezes} / ${stats.frames_dropped}`],
      ["buffer video / audio", `${stats.video_buffer_ms} / ${stats.audio_buffer_ms} ms`],
      ["rtt media / channel", `${stats.rtt_ms} / ${stats.latency_ms} ms`],
      ["lost", `${stats.packets_lost} of ${stats.packets_received + stats.packets_lost}`],
      ["route", stats.route],
      ...Object.entries(this.#metrics)
        .filter(([key, value]) => key !== "type" && ["number", "string"].includes(typeof value))
        .map(([key, value]) => [key, value]),
    ]);
  }
}
