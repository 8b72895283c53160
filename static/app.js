/**
 * The page: joins the portrait, the microphone, the text box and the files to their controls.
 *
 * Place in the flow: the top. It decides what is said in words and what is shown; media and connection live below.
 *
 * Query options: `?avatar=name` a face, `?mode=mirror` what becomes of the microphone, `?debug` figures over the portrait, `?raw` a microphone without the browser's
 * processing. `window.visavis` is the TalkingHead, for benchmarks and the curious: say, play, act, interrupt, mirror, stats.
 */

import { Captions } from "./captions.js";
import { Files } from "./files.js";
import { hint, TRIES } from "./hints.js";
import { Microphone } from "./microphone.js";
import { Panel } from "./panel.js";
import { explain } from "./protocol.js";
import "./talking-head.js";

const STATUS = {
  connecting: "Connecting",
  live: "Live",
  weak: "Weak connection",
  reconnecting: "Reconnecting",
  waiting: "Waiting for a seat",
  stopped: "Not connected",
  closed: "Ended",
};
/** A connection that takes less than this needs no words: the poster is already there. */
const PATIENCE_MS = 1500;
/** A retry closer than this needs no button. */
const SOON_MS = 1500;
const NOTICE_MS = 12_000;
/** How long before the end of a session it is announced. */
const ENDING_MS = 30_000;
const MODES = ["converse", "mirror", "say"];
/** The counter appears when this share of the limit is used. */
const COUNT_FROM = 0.8;

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const head = $("head");
const microphone = new Microphone({ raw: query.has("raw") });
const canDrop = matchMedia("(hover: hover)").matches;
const captions = new Captions($("captions"), $("spoken"));
/** What the server understood; no live region, for whoever said it knows it. */
const heard = new Captions($("heard"), null, { said: true, lingerMs: 4000 });

let name = "The portrait";
let avatar = query.get("avatar") ?? undefined;
let soundChosen = false;
let tried = false;
let live = { state: "new" };
let thinking = false;
let lastFile = "";
const files = new Map();

window.visavis = head;

// --- words -------------------------------------------------------------------------------------------------------

let noticeTimer = 0;

/** Say in words what went wrong; `sticky` stays until it is dismissed or settled. */
function tell(error, { sticky = false } = {}) {
  const words = explain(error, { name, mb: Math.floor(head.config.audio_max_bytes / 1e6) });
  $("notice-title").textContent = words.title;
  $("notice-text").textContent = words.text;
  $("notice").dataset.code = words.code;
  $("notice").hidden = false;
  clearTimeout(noticeTimer);
  if (!sticky) noticeTimer = setTimeout(hush, NOTICE_MS);
  arrange();
}

function hush(prefix = "") {
  if (prefix && !$("notice").dataset.code?.startsWith(prefix)) return;
  $("notice").hidden = true;
  $("notice-text").textContent = $("notice-title").textContent = "";
  arrange();
}

/** What stands over the lower part of the portrait: one thing at a time, the most urgent first. */
function arrange() {
  $("tries").hidden = tried || live.state !== "live" || !$("notice").hidden || !$("veil").hidden || head.speaking || microphone.open;
  // One's own voice in the mirror is stopped by being quiet.
  $("stop").hidden = !head.speaking || head.source === "microphone";
  $("hint").textContent = hint($("talk").dataset.state, { name, mode: head.mode, thinking, canDrop });
}

// --- connection --------------------------------------------------------------------------------------------------

let patience = 0;
let countdown = 0;
let ending = 0;

function showStatus(state) {
  if ($("status").dataset.state === state) return;
  $("status").dataset.state = state;
  $("status-text").textContent = STATUS[state];
}

head.addEventListener("state", ({ detail }) => {
  live = detail;
  clearTimeout(patience);
  clearInterval(countdown);
  clearTimeout(ending);
  showStatus(detail.state);
  if (detail.state === "live") {
    $("veil").hidden = true;
    const lastsMs = head.config.session_max_s * 1000;
    if (lastsMs > 2 * ENDING_MS) ending = setTimeout(() => tell({ code: "session_ending" }), lastsMs - ENDING_MS);
    microphone.track && head.setMicrophone(microphone.track);
  } else if (["connecting", "reconnecting"].includes(detail.state) && !detail.reason) {
    patience = setTimeout(veil, PATIENCE_MS);
  } else {
    veil();
  }
  arrange();
});

/** Words over the portrait while there is no live picture: what happened, what happens next, what to do. */
function veil() {
  const { state, retryAt } = live;
  const reason = state === "closed" ? { code: "session_ended", message: "" } : live.reason;
  const words = reason ? explain(reason, { name }) : { title: "Connecting", text: "The portrait will be with you in a moment." };
  const busy = ["connecting", "reconnecting"].includes(state);
  $("veil").dataset.code = words.code ?? "";
  $("veil").querySelector(".spinner").hidden = !busy;
  $("veil-title").textContent = words.title;
  $("veil-action").hidden = busy && retryAt - performance.now() < SOON_MS;
  $("veil-action").textContent = words.code === "session_ended" ? "Start again" : "Try now";
  $("veil").hidden = false;
  $("veil-text").textContent = words.text;
  if (!retryAt) return;
  const count = () => {
    const s = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    $("veil-action").textContent = s ? `Try now (${s})` : "Trying";
  };
  count();
  countdown = setInterval(count, 250);
}

$("veil-action").addEventListener("click", () => head.connect());
addEventListener("online", () => live.state !== "live" && head.connect());
addEventListener("pagehide", () => {
  microphone.stop();
  head.close();
});
// Back from the browser's page cache: the session was given back when the page went away.
addEventListener("pageshow", (e) => e.persisted && (setTalk("off"), head.connect()));
document.addEventListener("visibilitychange", () => !document.hidden && live.retryAt && head.connect());

// --- sound -------------------------------------------------------------------------------------------------------

/** A gesture that makes it speak also wants to hear it, unless sound was switched off by hand. */
function wantSound() {
  if (!soundChosen && head.muted) head.muted = false;
}

$("sound").addEventListener("click", () => {
  soundChosen = true;
  head.muted = !head.muted;
});
head.addEventListener("sound", ({ detail }) => {
  $("sound").setAttribute("aria-pressed", String(!detail.muted));
  $("sound").querySelector("use").setAttribute("href", detail.muted ? "#i-sound-off" : "#i-sound");
});

// --- microphone --------------------------------------------------------------------------------------------------

/** @param {"off"|"asking"|"on"|"muted"} state */
function setTalk(state) {
  $("talk").dataset.state = state;
  // In a conversation the server hears for itself when somebody speaks.
  head.listen(state === "on" && head.mirroring);
  $("talk-label").textContent = { off: "Start talking", asking: "Waiting for permission", on: "Mute microphone", muted: "Unmute microphone" }[state];
  $("talk-button").querySelector("use").setAttribute("href", state === "muted" ? "#i-mic-off" : "#i-mic");
  arrange();
}

async function startTalking(deviceId) {
  soundChosen = false;
  wantSound();
  const before = $("talk").dataset.state;
  setTalk("asking");
  try {
    const track = await microphone.start(deviceId);
    await head.setMicrophone(track);
    hush();
    setTalk(microphone.muted ? "muted" : "on");
  } catch (error) {
    setTalk(microphone.open ? before : "off");
    tell(error, { sticky: true });
  }
}

function toggleTalk() {
  const state = $("talk").dataset.state;
  if (state === "off") return startTalking();
  if (state === "asking") return undefined;
  microphone.muted = !microphone.muted;
  return setTalk(microphone.muted ? "muted" : "on");
}

function chooseMode(mode) {
  head.setMode(mode);
  heard.clear();
  setTalk($("talk").dataset.state);
  introduce(faces);
}

$("talk-button").addEventListener("click", toggleTalk);
microphone.addEventListener("level", ({ detail }) => {
  $("talk-button").style.setProperty("--level", microphone.muted ? 0 : detail.level.toFixed(3));
});
microphone.addEventListener("lost", () => {
  head.setMicrophone(null);
  setTalk("off");
  tell({ code: "microphone_lost" }, { sticky: true });
});
// Allowed after all, in the browser's own menu: carry on without another click.
navigator.permissions?.query({ name: "microphone" }).then(
  (status) => status.addEventListener("change", () => status.state === "granted" && $("notice").dataset.code === "microphone_denied" && hush("microphone")),
  () => {},
);

// --- speaking ----------------------------------------------------------------------------------------------------

head.addEventListener("speaking", ({ detail }) => {
  if (!detail.speaking) captions.finish();
  // Nobody knows the words of a file, but its name is known; the event may overtake the answer to the upload.
  else if (detail.label === "file") captions.show({ text: files.get(detail.utterance_id) ?? lastFile });
  arrange();
});
head.addEventListener("caption", ({ detail }) => captions.show(detail));
// A caption that was on its way when Stop was pressed, or when somebody spoke.
head.addEventListener("interrupted", () => captions.clear());
head.addEventListener("transcript", ({ detail }) => {
  if (detail.text) heard.show({ text: detail.text });
  if (detail.final) heard.finish();
});
head.addEventListener("turn", ({ detail }) => {
  thinking = detail.state === "thinking";
  arrange();
});
head.addEventListener("error", ({ detail }) => tell(detail));

function stop() {
  head.interrupt();
  captions.clear();
}

async function say(text) {
  wantSound();
  tried = true;
  hush();
  try {
    await (head.mode === "converse" ? head.ask(text) : head.say(text));
    return true;
  } catch (error) {
    tell(error);
    return false;
  }
}

$("stop").addEventListener("click", stop);
$("tries").addEventListener("click", (e) => e.target.closest("button") && say(e.target.closest("button").textContent));

// --- text box ----------------------------------------------------------------------------------------------------

const text = $("text");

function measure() {
  const limit = head.config.text_max_chars;
  const used = [...text.value.trim()].length;
  $("count").textContent = used > limit * COUNT_FROM ? `${limit - used}` : "";
  $("count").toggleAttribute("data-over", used > limit);
  $("send").disabled = !used || used > limit;
  if (!CSS.supports("field-sizing", "content")) {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  }
}

text.addEventListener("input", measure);
text.addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("composer").requestSubmit($("send").disabled ? null : $("send"));
});
$("composer").addEventListener("submit", async (e) => {
  e.preventDefault();
  if ($("send").disabled) return;
  const sentence = text.value.trim();
  text.value = "";
  measure();
  // Nothing a person wrote is lost: what could not be spoken returns to the box.
  if (!(await say(sentence)) && !text.value) {
    text.value = sentence;
    measure();
  }
});

new Files(
  {
    drop: $("drop"),
    button: $("file-button"),
    input: $("file"),
    box: $("upload"),
    name: $("upload-name"),
    progress: $("upload-progress"),
    cancel: $("upload-cancel"),
  },
  async (file, options) => {
    wantSound();
    tried = true;
    hush();
    lastFile = file.name;
    files.set((await head.play(file, options)).utterance_id, file.name);
  },
  (error) => tell(error),
);

// --- the rest ----------------------------------------------------------------------------------------------------

const panel = new Panel(head, microphone, {
  debug: query.has("debug"),
  chooseFace: (choice) => {
    avatar = choice;
    head.setAttribute("avatar", choice);
    introduce(faces);
    head.connect();
  },
  chooseMode,
  chooseMicrophone: (id) => id && startTalking(id),
  onQuality: (word) => {
    if (live.state === "live") showStatus(word === "Weak" ? "weak" : "live");
  },
});

$("captions-button").addEventListener("click", (e) => {
  captions.visible = heard.visible = !captions.visible;
  e.currentTarget.setAttribute("aria-pressed", String(captions.visible));
});
$("notice-close").addEventListener("click", () => hush());
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));
head.addEventListener("shape", ({ detail }) => $("stage").style.setProperty("--shape", detail.ratio));

document.addEventListener("keydown", (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === "Escape" && !panel.open && head.speaking) return stop();
  const elsewhere = e.target === document.body;
  if (elsewhere && e.key === " " && !e.repeat) {
    e.preventDefault();
    toggleTalk();
  } else if (elsewhere && e.key.length === 1 && e.key !== " ") {
    text.focus();
  }
});

let faces = [];

/** Show the name and the still of the face that is, or will be, connected. */
function introduce(list) {
  faces = list;
  const face = list.find((a) => a.name === avatar) ?? list.find((a) => a.default) ?? list[0];
  if (!face) return;
  name = face.title ?? face.name;
  $("name").textContent = name;
  head.setAttribute("aria-label", `Live portrait of ${name}, a computer-generated person`);
  const tries = TRIES[head.mode] ?? TRIES.say;
  [...$("tries").children].forEach((button, i) => (button.textContent = tries[i]));
  text.placeholder = head.mode === "converse" ? `Write to ${name}` : `Type something for ${name} to say`;
  head.poster = $("ambient").src = head.api.poster(face.name);
  $("ambient").hidden = false;
  panel.showFaces(list, face.name);
  panel.showMoves(face.clips ?? []);
  arrange();
}

if (avatar) head.setAttribute("avatar", avatar);
arrange();
// The poster and the connection do not wait for each other.
head.api.avatars().then(introduce, () => {});
head.config = await head.api.config().catch(() => head.config);
measure();
panel.offerQuality(head.config);
if (MODES.includes(query.get("mode"))) head.setMode(query.get("mode"));
panel.offerModes(head.config);
introduce(faces);
head.connect();
