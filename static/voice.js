/**
 * The settings of the avatar's voice: higher or lower, brighter or darker, another voice altogether.
 *
 * Place in the flow: beside `panel.js`; sets a `TalkingHead`. `app.js` asks it whether a dropped file could be heard in another voice.
 */

import { language, t } from "./language.js";

/** Commands follow a slider no faster than this. */
const SETTLE_MS = 150;

const $ = (id) => document.getElementById(id);

/** A number of semitones as words. */
function semitones(value, up, down) {
  const n = Math.abs(value);
  return value ? t(`voice.${value > 0 ? up : down}${n === 1 ? ".1" : ""}`, { n }) : t("voice.asis");
}

export class VoiceSettings {
  #head;
  #timer = 0;
  #told = "";

  /** @param {import("./talking-head.js").TalkingHead} head */
  constructor(head) {
    this.#head = head;
    for (const id of ["pitch", "formant", "conversion"]) $(id).addEventListener("input", () => this.#changed());
    $("voice-reset").addEventListener("click", () => {
      $("pitch").value = $("formant").value = "0";
      $("conversion").value = "";
      this.#changed();
    });
    this.#describe();
    language.addEventListener("change", () => {
      if ($("conversion").options.length) $("conversion").options[0].text = t("voice.own");
      this.#describe();
    });
  }

  /** What is chosen; both numbers in semitones. */
  get chosen() {
    return { pitch: Number($("pitch").value), formant: Number($("formant").value), conversion: $("conversion").value };
  }

  /** Whether that is another voice than the avatar's own. */
  get changes() {
    const { pitch, formant, conversion } = this.chosen;
    return !$("voice").hidden && Boolean(pitch || formant || conversion);
  }

  /** What a recording in the chosen voice is called; "" where the voice is not changed. */
  otherName(name) {
    if (!this.changes) return "";
    return this.chosen.conversion ? t("file.other", { name }) : t("file.changed");
  }

  /** Show what this server can do: null conversions are a server that changes no voices. */
  show({ voice_conversions: names, voice_pitch: pitch = 0, voice_formant: formant = 0, voice_conversion: conversion = "" }) {
    $("voice").hidden = names === null;
    if (names === null) return;
    $("conversion-label").hidden = !names.length;
    $("conversion").replaceChildren(new Option(t("voice.own"), ""), ...names.map((name) => new Option(name, name)));
    $("pitch").value = pitch;
    $("formant").value = formant;
    $("conversion").value = conversion;
    this.#told = JSON.stringify(this.chosen);
    this.#describe();
  }

  #changed() {
    this.#describe();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const chosen = this.chosen;
      if (JSON.stringify(chosen) === this.#told) return;
      this.#told = JSON.stringify(chosen);
      this.#head.setVoice(chosen);
    }, SETTLE_MS);
  }

  #describe() {
    const { pitch, formant } = this.chosen;
    const words = { pitch: semitones(pitch, "higher", "lower"), formant: semitones(formant, "brighter", "darker") };
    for (const [id, text] of Object.entries(words)) {
      $(`${id}-state`).textContent = text;
      $(id).setAttribute("aria-valuetext", text);
    }
    $("voice-reset").hidden = !this.changes;
  }
}
