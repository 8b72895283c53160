/**
 * What this browser can and may do, as far as it tells without asking anybody.
 *
 * Place in the flow: `doctor.js` runs it first; microphone and speaker are tried by `doctor-sound.js`, the way to the
 * server by `doctor-connection.js`.
 */

import { missing } from "./embed-policy.js";
import { finding } from "./doctor-report.js";

const FEATURES = ["microphone", "autoplay", "fullscreen"];
/** Clocks that are further apart make tokens and certificates end at the wrong time, seconds. */
const CLOCK_S = 60;
const AUTOPLAY_MS = 1500;

/**
 * All checks, in the order in which they are told.
 * @param {{problem: string, message: string}} framing what the server says of the page around, when there is one
 * @returns {Promise<import("./doctor-report.js").Finding[]>}
 */
export async function lookAtBrowser(framing) {
  return [secureContext(), ...frame(framing), webrtc(), ...codecs(), await autoplay(), webgl(), await clock()].filter(Boolean);
}

function secureContext() {
  if (isSecureContext) return finding("secure_context", "ok", "This address counts as secure, so the browser may give it the microphone.");
  const around = window === top || location.protocol === "https:" ? "" : " and every page around it";
  return finding(
    "secure_context",
    "problem",
    "This address is not secure: the browser keeps the microphone from it.",
    location.protocol === "https:"
      ? "The page around this frame must be served as https://… too."
      : `Open this page${around} as https://… (a reverse proxy with a certificate), or on the server itself as http://localhost.`,
  );
}

function frame(framing) {
  const absent = missing(FEATURES);
  if (window === top) {
    return absent.length ? [finding("policy", "problem", `This page may not use: ${absent.join(", ")}.`, "A Permissions-Policy header of a proxy forbids it; remove it there.")] : [];
  }
  const found = [];
  if (framing.problem) found.push(finding("origin", "problem", framing.message, originChange(framing.problem)));
  else found.push(finding("origin", "ok", "The page around this frame may show the portrait."));
  if (absent.length) {
    const verdict = absent.includes("microphone") ? "problem" : "warning";
    found.push(finding("policy", verdict, `The page around this frame does not allow: ${absent.join(", ")}.`, `Its iframe needs allow="${FEATURES.join("; ")}".`));
  } else if (document.featurePolicy) {
    found.push(finding("policy", "ok", "The frame may use microphone, sound and the full screen."));
  } else {
    found.push(finding("policy", "note", "This browser does not tell what the frame may use.", `It needs allow="${FEATURES.join("; ")}"; try the microphone below.`));
  }
  return found;
}

function originChange(problem) {
  if (problem === "embed_key_required") return "Whoever runs the server: python -m server embeds add AVATAR --origin https://… prints the key for ?key=.";
  if (problem === "embed_origin_not_listed") return "Whoever runs the server: python -m server embeds add AVATAR --origin ORIGIN, or allowed_origins.";
  return "";
}

function webrtc() {
  if (typeof RTCPeerConnection !== "undefined") return finding("webrtc", "ok", "This browser has WebRTC.");
  return finding("webrtc", "problem", "This browser has no WebRTC, so no live picture.", "Use a current Chrome, Edge, Firefox or Safari, and switch off what blocks WebRTC, such as some privacy extensions.");
}

function codecs() {
  if (typeof RTCRtpReceiver === "undefined" || !RTCRtpReceiver.getCapabilities) return [];
  const names = (kind) => new Set((RTCRtpReceiver.getCapabilities(kind)?.codecs ?? []).map((codec) => codec.mimeType.split("/")[1].toUpperCase()));
  const video = ["H264", "VP8"].filter((name) => names("video").has(name));
  const opus = names("audio").has("OPUS");
  if (!video.length || !opus) {
    return [finding("codecs", "problem", `This browser receives ${opus ? "neither H.264 nor VP8" : "no Opus"}.`, "Use another browser; builds without codecs lack them.")];
  }
  if (video.length === 1) return [finding("codecs", "note", `Of the two codecs for pictures this browser receives ${video[0].replace("H264", "H.264")} only, which is enough.`)];
  return [finding("codecs", "ok", "It receives H.264, VP8 and Opus.")];
}

/** Whether moving pictures start by themselves, and whether sound does. */
async function autoplay() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 16;
  canvas.getContext("2d").fillRect(0, 0, 16, 16);
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  const stream = canvas.captureStream?.(5) ?? null;
  if (!stream) return null;
  video.srcObject = stream;
  let refused = false;
  await Promise.race([video.play().catch((error) => (refused = error.name === "NotAllowedError")), pause(AUTOPLAY_MS)]);
  stream.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  if (refused) return finding("autoplay", "warning", "Not even muted pictures start by themselves here.", "Allow autoplay for this site in the browser's settings; low-power mode on phones forbids it too. A press on the portrait starts it.");
  const context = new AudioContext();
  const free = context.state === "running" || navigator.getAutoplayPolicy?.("mediaelement") === "allowed";
  await context.close();
  if (free) return finding("autoplay", "ok", "Pictures and sound may start by themselves.");
  return finding("autoplay", "ok", "Pictures start by themselves, sound with the first press, as browsers want it.");
}

function webgl() {
  const canvas = document.createElement("canvas");
  if (canvas.getContext("webgl2") ?? canvas.getContext("webgl")) return finding("webgl", "ok", "It has WebGL, for other backgrounds.");
  return finding("webgl", "warning", "It has no WebGL: the background stays as filmed.", "Switch on hardware acceleration in the browser's settings.");
}

/** Compares this machine's clock with the server's. */
async function clock() {
  try {
    const asked = Date.now();
    const response = await fetch("healthz", { cache: "no-store" });
    const told = Date.parse(response.headers.get("Date") ?? "");
    if (Number.isNaN(told)) return null;
    const away = Math.round(((asked + Date.now()) / 2 - told) / 1000);
    if (Math.abs(away) <= CLOCK_S) return finding("clock", "ok", "Its clock agrees with the server's.");
    return finding("clock", "warning", `Its clock is ${Math.abs(away)} s ${away > 0 ? "ahead of" : "behind"} the server's.`, "Let both set their clocks by the network: tokens and certificates end by the clock.");
  } catch {
    return finding("server_gone", "problem", "The server does not answer this browser any more.", "See that it still runs; its log says why it ended.");
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
