/**
 * The microphone and the speaker, tried.
 *
 * Place in the flow: `doctor.js` asks for what is known without asking anybody, and tries what a person presses a button for.
 *
 * Invariant: no sound leaves this page, and the microphone is let go when the try is over.
 */

import { finding } from "./doctor-report.js";
import { Microphone } from "./microphone.js";

const LISTEN_MS = 5000;
/** Of the meter's range, which begins at -55 dBFS: room noise stays below, a voice does not. */
const VOICE_LEVEL = 0.3;
const TONE_S = 0.7;

const PLACE = "Press the sign at the left of the address, allow the microphone for this site, and try again.";

const FAILURES = {
  microphone_denied: ["problem", "The microphone is not allowed for this page.", `${PLACE} Where nothing is asked, the system's privacy settings keep it from the browser.`],
  microphone_policy: ["problem", "The page around this frame does not allow the microphone.", 'Its iframe needs allow="microphone; autoplay; fullscreen".'],
  microphone_missing: ["problem", "There is no microphone.", "Plug one in, or choose one in the system's sound settings."],
  microphone_busy: ["problem", "The microphone is there and gives no sound.", "Close other programs that use it, then try again."],
  microphone_insecure: ["problem", "Without https the browser has no microphone to give.", "Open this page as https://…, or on the server itself as http://localhost."],
};

/**
 * What is known of devices and permissions.
 * @returns {Promise<import("./doctor-report.js").Finding[]>}
 */
export async function lookAtSound() {
  if (!navigator.mediaDevices?.enumerateDevices) return [failure("microphone_insecure")];
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const number = (kind) => devices.filter((device) => device.kind === kind).length;
  if (!number("audioinput")) return [failure("microphone_missing")];
  // Firefox does not know the name.
  const permission = await navigator.permissions?.query({ name: "microphone" }).catch(() => null);
  const found = [microphone(permission?.state ?? "prompt")];
  if ("setSinkId" in HTMLMediaElement.prototype && !number("audiooutput")) {
    found.push(finding("speaker", "warning", "There is no speaker.", "Plug one in, or choose one in the system's sound settings."));
  }
  return found;
}

function microphone(state) {
  if (state === "denied") return failure(document.featurePolicy?.allowsFeature("microphone") === false ? "microphone_policy" : "microphone_denied");
  if (state === "granted") return finding("microphone", "ok", "There is a microphone, and this page may use it.");
  return finding("microphone", "ok", "There is a microphone; the browser will ask before this page may use it.");
}

function failure(code) {
  return finding("microphone", ...(FAILURES[code] ?? FAILURES.microphone_busy));
}

/**
 * Opens the microphone and listens for a voice.
 * @param {(level: number) => void} tell level, 0 to 1, about thirty times a second
 * @returns {Promise<import("./doctor-report.js").Finding>}
 */
export async function tryMicrophone(tell) {
  const input = new Microphone();
  try {
    await input.start();
  } catch (error) {
    return failure(error.code);
  }
  let loudest = 0;
  let lost = false;
  try {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, LISTEN_MS);
      input.addEventListener("level", ({ detail: { level } }) => {
        loudest = Math.max(loudest, level);
        tell(level);
      });
      input.addEventListener("lost", () => {
        lost = true;
        clearTimeout(timer);
        resolve();
      });
    });
  } finally {
    input.stop();
    tell(0);
  }
  if (lost) return finding("microphone", "problem", "The microphone went away while it was tried.", "Look at its plug or its Bluetooth, then try again.");
  if (loudest === 0) return finding("microphone", "problem", "The microphone gives silence.", "See whether it has a switch, and whether the system's sound settings show another one as the input.");
  if (loudest < VOICE_LEVEL) return finding("microphone", "warning", "The microphone works, but nothing as loud as a voice was heard.", "Speak while it is tried; if you did, raise its level in the system's sound settings.");
  return finding("microphone", "ok", "The microphone works: a voice was heard.");
}

/** Plays two soft tones; resolves when they are over. */
export async function playSound() {
  const context = new AudioContext();
  await context.resume();
  const volume = context.createGain();
  volume.connect(context.destination);
  const end = context.currentTime + TONE_S;
  volume.gain.setValueAtTime(0, context.currentTime);
  volume.gain.linearRampToValueAtTime(0.2, context.currentTime + 0.03);
  volume.gain.linearRampToValueAtTime(0, end);
  for (const [index, hertz] of [523.25, 659.25].entries()) {
    const tone = context.createOscillator();
    tone.frequency.value = hertz;
    tone.connect(volume);
    tone.start(context.currentTime + index * 0.18);
    tone.stop(end);
  }
  await new Promise((resolve) => setTimeout(resolve, TONE_S * 1000 + 100));
  await context.close();
}

/** What a person said about the tones. */
export function heardSound(heard) {
  if (heard) return finding("speaker", "ok", "The sound was heard.");
  return finding("speaker", "problem", "The sound was not heard.", "Raise the volume, see whether this tab is muted, and which output the system's sound settings show.");
}
