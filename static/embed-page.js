/**
 * The embed: a portrait in a frame of somebody else's page.
 *
 * Place in the flow: the top of its page, as `app.js` is of the server's own. Joins the portrait, its few controls and the
 * `Bridge` to the page around. Nothing connects, and no microphone opens, before somebody begins.
 *
 * Query: `lang`, `avatar`, `key` (of the embed, for the server, where it asks for one), `mic` = on | hold | off, `captions` = on | off,
 * `muted`, `autostart` (the picture moves at once, without sound), `bubble` (a round button until it is pressed).
 *
 * Commands: start, stop, say {text}, ask {text}, interrupt, set_avatar {avatar}, set_muted {muted}, set_captions {captions},
 * set_microphone {on}. Events: ready, state, speaking, user_speaking, user_transcript, avatar_transcript, interrupted,
 * sound, microphone, bubble, ending, metrics, error.
 */

import { Captions } from "./captions.js";
import { Composer } from "./composer.js";
import { admit } from "./embed-admission.js";
import { Bridge, failure } from "./embed-bridge.js";
import { missing, policyProblem } from "./embed-policy.js";
import { FirstSound } from "./first-sound.js";
import { t, translate } from "./language.js";
import { Microphone } from "./microphone.js";
import { Ending, Notice } from "./notice.js";
import { explain, Problem, problem } from "./protocol.js";
import { Talk } from "./talk.js";
import "./talking-head.js";
import { Veil } from "./veil.js";

/** A connection that takes less than this needs no words: the poster is already there. */
const PATIENCE_MS = 1500;

const $ = (id) => document.getElementById(id);
const given = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
const query = new URLSearchParams(location.search);
const mic = ["hold", "off"].includes(query.get("mic")) ? query.get("mic") : "on";
const wantedFeatures = [...(mic === "off" ? [] : ["microphone"]), "autoplay", "fullscreen"];

const head = $("head");
const microphone = new Microphone();
const captions = new Captions($("captions"), $("spoken"));
/** What the server understood; no live region, for whoever said it knows it. */
const heard = new Captions($("heard"), null, { said: true, lingerMs: 4000 });
const firstSound = new FirstSound((turnId, pageMs) => head.heard(turnId, pageMs));

let name = t("portrait.nobody");
let faces = [];
/** Somebody has begun: sound is wanted, and the microphone. */
let begun = false;
let quiet = query.has("muted");
let live = { state: "new", reason: null, retryAt: 0 };
/** Who waits for the portrait to be live. */
const waiting = [];
let micError = null;

// --- words -------------------------------------------------------------------------------------------------------

translate();

const notice = new Notice(() => ({ name }), () => {});
const ending = new Ending();

/** Say what went wrong, here and to the page around; `sticky` stays until it is dismissed. */
function tell(error, options) {
  bridge.tell("error", failure(error));
  notice.tell(error, options);
}

// --- begin and end -----------------------------------------------------------------------------------------------

/** Resolves when the portrait is live; rejects when it stops trying. */
async function begin() {
  const first = !begun;
  begun = true;
  openBubble(true);
  show();
  wantSound();
  if (first && mic !== "off" && head.mode !== "say" && !missing(["microphone"]).length) talk.start();
  if (live.state === "live") return;
  const done = new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  if (["new", "stopped", "closed"].includes(live.state)) head.connect();
  await done;
}

function end() {
  begun = false;
  talk.stop();
  head.muted = true;
  head.close();
  captions.clear();
  heard.clear();
  notice.hush();
  openBubble(false);
  show();
}

/** What can be used now. */
function show() {
  document.body.dataset.view = begun ? "talk" : "poster";
  document.body.toggleAttribute("data-live", live.state === "live");
  $("stop").hidden = !head.speaking || head.source === "microphone";
}

function pressed() {
  // What goes wrong is in the state, for everybody.
  begin().catch(() => {});
  $(mic === "off" ? "text" : "talk-button").focus();
}

$("begin").addEventListener("click", pressed);
$("end").addEventListener("click", () => {
  end();
  (bubble ? $("bubble") : $("begin")).focus();
});
addEventListener("pagehide", () => {
  microphone.stop();
  head.close();
});
addEventListener("pageshow", (e) => e.persisted && end());
addEventListener("online", () => ["reconnecting", "waiting"].includes(live.state) && head.connect());

// --- bubble ------------------------------------------------------------------------------------------------------

const bubble = query.has("bubble");

function openBubble(open) {
  if (!bubble || (document.body.dataset.bubble === "open") === open) return;
  document.body.dataset.bubble = open ? "open" : "closed";
  $("bubble").hidden = open;
  $("bubble").setAttribute("aria-expanded", String(open));
  bridge.tell("bubble", { open });
}

$("bubble").addEventListener("click", pressed);

// --- connection --------------------------------------------------------------------------------------------------

let patience = 0;
const veil = new Veil(
  { box: $("veil"), spinner: $("veil-spinner"), title: $("veil-title"), text: $("veil-text"), action: $("veil-action") },
  () => head.connect(),
);

function tellState() {
  const { state, reason, retryAt } = live;
  const why = reason && { ...failure(reason), message: explain(reason, { name }).text };
  bridge.tell("state", { state, reason: why, retry_in_ms: retryAt ? Math.round(retryAt - performance.now()) : 0 });
}

head.addEventListener("state", ({ detail }) => {
  live = detail;
  clearTimeout(patience);
  $("status").textContent = t(`status.${detail.state}`);
  ending.clear();
  const { state, reason } = detail;
  tellState();
  if (state === "live") {
    microphone.track && head.setMicrophone(microphone.track);
    waiting.splice(0).forEach(({ resolve }) => resolve());
  } else if (state === "stopped" || state === "closed") {
    if (state === "stopped") bridge.tell("error", failure(reason));
    waiting.splice(0).forEach(({ reject }) => reject(reason ?? problem("session_ended")));
  }
  if (state === "live" || (state === "closed" && !begun)) veil.hide();
  else if (["connecting", "reconnecting"].includes(state) && !reason) patience = setTimeout(() => veil.show(live, { name }), PATIENCE_MS);
  else veil.show(detail, { name });
  show();
});
head.addEventListener("ending", ({ detail }) => {
  ending.tell(detail);
  bridge.tell("ending", { reason: detail.reason, seconds_left: detail.seconds_left });
});
head.addEventListener("stream", ({ detail }) => (firstSound.stream = detail.stream));

// --- sound and microphone ----------------------------------------------------------------------------------------

function wantSound() {
  if (!quiet) head.muted = false;
}

function setMuted(muted) {
  quiet = muted;
  // Until somebody begins there is no gesture that would let the browser play it.
  if (muted || begun) head.muted = muted;
}

$("sound").addEventListener("click", () => {
  quiet = head.muted = !head.muted;
});
head.addEventListener("sound", ({ detail }) => {
  firstSound.audible = !detail.muted;
  $("sound").setAttribute("aria-pressed", String(!detail.muted));
  $("sound").querySelector("use").setAttribute("href", detail.muted ? "#i-sound-off" : "#i-sound");
  bridge.tell("sound", { muted: detail.muted, blocked: detail.blocked });
  if (!detail.blocked) return;
  const absent = missing(["autoplay"]);
  tell(absent.length ? policyProblem(absent, wantedFeatures) : problem("sound_blocked"), { sticky: true });
});

const talk = new Talk({ box: $("talk"), button: $("talk-button"), label: $("talk-label") }, microphone, head);
talk.holds = mic === "hold";

talk.addEventListener("change", ({ detail }) => {
  if (microphone.open) notice.hush("microphone");
  bridge.tell("microphone", { state: detail.state });
});
talk.addEventListener("failed", ({ detail }) => micFailed(detail.error));
microphone.addEventListener("lost", () => tell(problem("microphone_lost"), { sticky: true }));

function micFailed(error) {
  micError = error;
  tell(error.code === "microphone_policy" ? policyProblem(["microphone"], wantedFeatures) : error, { sticky: true });
}

// --- talking -----------------------------------------------------------------------------------------------------

async function say(text) {
  wantSound();
  notice.hush();
  try {
    await (head.mode === "converse" ? head.ask(text) : head.say(text));
    return true;
  } catch (error) {
    tell(error);
    return false;
  }
}

function stop() {
  head.interrupt();
  captions.cut();
}

head.addEventListener("speaking", ({ detail }) => {
  if (!detail.speaking) {
    captions.finish();
    firstSound.forget();
  }
  bridge.tell("speaking", { speaking: Boolean(detail.speaking), utterance_id: detail.utterance_id });
  show();
});
head.addEventListener("caption", ({ detail }) => {
  captions.show(detail);
  bridge.tell("avatar_transcript", { text: detail.text, utterance_id: detail.utterance_id });
});
head.addEventListener("paused", () => captions.pause());
head.addEventListener("resumed", () => captions.resume());
head.addEventListener("interrupted", ({ detail }) => {
  captions.cut();
  firstSound.forget();
  bridge.tell("interrupted", { utterance_id: detail.utterance_id, played_text: detail.played_text ?? "" });
});
head.addEventListener("user_speaking", ({ detail }) => bridge.tell("user_speaking", { speaking: detail.speaking }));
head.addEventListener("transcript", ({ detail }) => {
  if (detail.text) heard.show({ text: detail.text });
  if (detail.final) heard.finish();
  bridge.tell("user_transcript", { text: detail.text, final: detail.final, turn_id: detail.turn_id });
});
head.addEventListener("turn", ({ detail }) => detail.state === "speaking" && firstSound.expect(detail.turn_id));
head.addEventListener("latency", ({ detail }) => bridge.tell("metrics", { turn_id: detail.turn_id, stages_ms: detail.stages_ms }));
head.addEventListener("error", ({ detail }) => tell(detail));

$("stop").addEventListener("click", stop);
const composer = new Composer({ form: $("composer"), text: $("text"), count: $("count"), send: $("send") }, () => head.config.text_max_chars, say);

// --- the rest ----------------------------------------------------------------------------------------------------

function setCaptions(on) {
  captions.visible = heard.visible = on;
  $("captions-button").setAttribute("aria-pressed", String(on));
}

$("captions-button").addEventListener("click", () => setCaptions(!captions.visible));
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));

document.addEventListener("keydown", (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === "Escape" && head.speaking) stop();
  else if (e.key === "Escape" && bubble && begun) $("end").click();
  else if (e.key === " " && e.target === document.body && begun && mic !== "off") {
    e.preventDefault();
    talk.key(e);
  }
});

/** Show the name and the still of the face that is, or will be, connected. */
function introduce(avatar) {
  const face = faces.find((a) => a.name === avatar) ?? faces.find((a) => a.default) ?? faces[0];
  if (!face) return;
  name = face.title ?? face.name;
  const silent = mic === "off" || head.mode === "say";
  $("talk").hidden = silent;
  $("name").textContent = name;
  $("title").textContent = document.title = t("embed.title", { name });
  $("begin").textContent = t(silent ? "embed.chat" : "embed.talk", { name });
  $("bubble").setAttribute("aria-label", t("embed.open", { name }));
  $("text").placeholder = t(head.mode === "converse" ? "text.ask" : "text.say", { name });
  head.setAttribute("aria-label", t("portrait.of", { name }));
  head.poster = head.api.poster(face.name);
}

function setAvatar(avatar) {
  if (!faces.some((face) => face.name === avatar)) throw new Problem("avatar_unknown", `There is no avatar "${avatar}" on this server.`);
  head.setAttribute("avatar", avatar);
  head.forgetStyle();
  introduce(avatar);
  notice.hush("avatar_unknown");
  // A new face is a new session; and what waited for a face that exists begins now.
  const waited = live.reason?.code === "avatar_unknown" || (live.state === "new" && query.has("autostart"));
  if (waited || !["new", "closed", "stopped"].includes(live.state)) head.connect();
}

async function setMicrophone(on) {
  if (!on) return talk.stop();
  if (mic === "off") throw new Problem("microphone_off", "This embed has no microphone: its attribute mic says so.");
  micError = null;
  if (talk.state === "off") talk.start();
  // Somebody may have asked before, and the browser may ask for as long as it likes.
  while (talk.state === "asking") await new Promise((resolve) => talk.addEventListener("change", resolve, { once: true }));
  if (!microphone.open) throw micError ?? new Problem("microphone_off", "The microphone was switched off while the browser asked for it.");
  return undefined;
}

const bridge = new Bridge(
  {
    start: begin,
    stop: end,
    say: ({ text = "" }) => head.say(String(text)),
    ask: ({ text = "" }) => head.ask(String(text)),
    interrupt: stop,
    set_avatar: ({ avatar }) => setAvatar(String(avatar)),
    set_muted: ({ muted }) => setMuted(Boolean(muted)),
    set_captions: ({ captions: on }) => setCaptions(Boolean(on)),
    set_microphone: ({ on }) => setMicrophone(Boolean(on)),
  },
  () => (faces.length ? ready() : tellState()),
);

function ready() {
  bridge.tell("ready", { avatar: head.avatar ?? faces.find((face) => face.default)?.name, avatars: faces.map((face) => face.name), mode: head.mode });
}

const avatar = given("avatar") || query.get("avatar");
if (avatar) head.setAttribute("avatar", avatar);
admit(head.api, { pageToken: given("page-token"), token: given("token") });
setCaptions(query.get("captions") !== "off");
if (query.has("background")) head.setAttribute("background", query.get("background"));
// The page around knows by this that the frame is ours, however long the rest takes.
tellState();
if (bubble) {
  document.body.dataset.bubble = "closed";
  $("bubble").hidden = false;
}
try {
  [faces, head.config] = await Promise.all([head.api.avatars(), head.api.config()]);
  document.documentElement.dataset.label = head.config.ai_label === false ? "off" : "on";
  introduce(avatar);
  composer.measure();
  // Also with a face that does not exist: the page around can only name another one to a frame that is ready.
  ready();
  const absent = missing(wantedFeatures.filter((feature) => feature !== "fullscreen"));
  if (absent.length) tell(policyProblem(absent, wantedFeatures), { sticky: true });
  if (avatar && !faces.some((face) => face.name === avatar)) tell(problem("avatar_unknown"), { sticky: true });
  else if (query.has("autostart")) head.connect();
} catch (error) {
  tell(error, { sticky: true });
}
