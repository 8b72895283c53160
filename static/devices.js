/**
 * The choice of microphone and loudspeaker, and how loud the microphone is.
 *
 * Place in the flow: part of the settings; sets a `TalkingHead` and tells `app.js` which microphone is wanted.
 *
 * Browsers name no device before the microphone is allowed: until then there is nothing to choose. Where they let no page
 * choose the loudspeaker, there is no such control.
 */

import { language, t } from "./language.js";
import { recall, remember } from "./preferences.js";

/** The bar follows the sound; what assistive technology can ask for follows more slowly. */
const TELL_MS = 500;

const $ = (id) => document.getElementById(id);

export class Devices {
  #head;
  #microphone;
  #toldMs = 0;

  /**
   * @param {import("./talking-head.js").TalkingHead} head
   * @param {import("./microphone.js").Microphone} microphone
   * @param {(id: string) => void} chooseMicrophone
   */
  constructor(head, microphone, chooseMicrophone) {
    this.#head = head;
    this.#microphone = microphone;
    $("speaker-label").hidden = !("setSinkId" in HTMLMediaElement.prototype);
    $("devices").addEventListener("change", (e) => e.target.value && chooseMicrophone(e.target.value));
    $("speaker").addEventListener("change", (e) => this.#choose(e.target.value));
    microphone.addEventListener("devices", () => this.refresh());
    microphone.addEventListener("level", ({ detail }) => this.#meter(microphone.muted ? 0 : detail.level));
    language.addEventListener("change", () => this.refresh());
  }

  /** List what there is now. */
  async refresh() {
    const [microphones, speakers] = await Promise.all([this.#microphone.devices(), outputs()]);
    fill($("devices"), microphones, t("device.later"));
    $("devices").disabled = !microphones.length;
    $("level-row").hidden = !this.#microphone.open;
    if ($("speaker-label").hidden) return;
    const wanted = this.#head.video.sinkId;
    fill($("speaker"), [{ id: "", label: t("device.default"), current: !wanted }, ...speakers.map((one) => ({ ...one, current: one.id === wanted }))]);
    $("speaker").disabled = !speakers.length;
    // What was chosen at an earlier visit is there again.
    const before = recall("speaker");
    if (before && !wanted && speakers.some(({ id }) => id === before)) this.#choose(before);
  }

  async #choose(id) {
    try {
      await this.#head.setSpeaker(id);
      remember("speaker", id || null);
    } catch {
      // Unplugged in this very moment, or not allowed: it plays where it played.
      remember("speaker", null);
    }
    $("speaker").value = this.#head.video.sinkId;
  }

  #meter(level) {
    if ($("level-row").hidden) return;
    $("level").style.setProperty("--level", level.toFixed(3));
    const now = performance.now();
    if (now - this.#toldMs < TELL_MS) return;
    this.#toldMs = now;
    $("level").setAttribute("aria-valuenow", String(Math.round(level * 100)));
  }
}

/** Loudspeakers beside the system's own. */
async function outputs() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return all
    .filter((d) => d.kind === "audiooutput" && d.label && !["", "default", "communications"].includes(d.deviceId))
    .map((d) => ({ id: d.deviceId, label: d.label }));
}

function fill(select, devices, none) {
  const options = devices.map(({ id, label, current }) => new Option(label, id, current, current));
  select.replaceChildren(...(options.length ? options : [new Option(none, "")]));
}
