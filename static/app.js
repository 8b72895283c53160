/**
 * The page: joins the portrait, the microphone, the text box and the files to their controls.
 *
 * Place in the flow: the top. It decides what is said in words and what is shown; media and connection live below.
 *
 * Query options: `?avatar=name` a face, `?mode=converse|hold|typed|mirror|say` the way of talking, `?lang=en|zh`, `?debug` figures over the portrait, `?raw` a
 * microphone without the browser's processing. `#token=` lets in where the server asks for something. `window.visavis` is the TalkingHead, for benchmarks and the curious: say, play, act, interrupt, mirror, stats.
 */

import { BackgroundChoice } from "./background-choice.js";
import { Captions } from "./captions.js";
import { Composer } from "./composer.js";
import { Conversation, WAYS } from "./conversation.js";
import { speakConverted } from "./conversions.js";
import { Devices } from "./devices.js";
import { Display, offerStudio } from "./display.js";
import { EmbedDialog } from "./embed-dialog.js";
import { Faces } from "./faces.js";
import { Files } from "./files.js";
import { FirstSound } from "./first-sound.js";
import { hint, tries } from "./hints.js";
import { language, t, translate } from "./language.js";
import { Microphone } from "./microphone.js";
import { Ending, Notice } from "./notice.js";
import { Panel } from "./panel.js";
import { Talk } from "./talk.js";
import "./talking-head.js";
import { Transcript } from "./transcript.js";
import { TranscriptView } from "./transcript-view.js";
import { Veil } from "./veil.js";
import { VoiceSettings } from "./voice.js";

/** A connection that takes less than this needs no words: the poster is already there. */
const PATIENCE_MS = 1500;
/** How long the line under the controls says why something was not answered. */
const MISSED_MS = 5000;

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const head = $("head");
const microphone = new Microphone({ raw: query.has("raw") });
const canDrop = matchMedia("(hover: hover)").matches;
const captions = new Captions($("captions"), $("spoken"));
/** What the server understood; no live region, for whoever said it knows it. */
const heard = new Captions($("heard"), null, { said: true, lingerMs: 4000 });
const transcript = new Transcript();
const firstSound = new FirstSound((turnId, pageMs) => head.heard(turnId, pageMs));

let name = t("portrait.nobody");
let avatar = query.get("avatar") ?? undefined;
let way = "always";
let soundChosen = false;
let tried = false;
let live = { state: "new" };
let thinking = false;
let missed = "";
let lastFile = "";
let lastSession = null;
const files = new Map();

window.visavis = head;

// --- words -------------------------------------------------------------------------------------------------------

translate();

const notice = new Notice(
  () => ({ name, mb: Math.floor(head.config.audio_max_bytes / 1e6) }),
  () => arrange(),
);
const ending = new Ending();

/** What stands over the lower part of the portrait: one thing at a time, the most urgent first. */
function arrange() {
  $("tries").hidden = tried || live.state !== "live" || notice.shown || !$("veil").hidden || head.speaking || microphone.open;
  // One's own voice in the mirror is stopped by being quiet.
  $("stop").hidden = !head.speaking || head.source === "microphone";
  $("talk").hidden = ["typed", "say"].includes(way);
  $("hint").hidden = conversation.offers && !microphone.open;
  $("offer").classList.toggle("later", microphone.open);
  $("talk-key").textContent = t(WAYS[way].holds ? "talk.hold" : "keys.microphone");
  $("hint").textContent = hint(talk.state, { name, way, thinking, missed, wakeWord: head.config.wake_word, canDrop });
}

let missedTimer = 0;

/** Say for a moment why what was just said is not answered. */
function miss(why) {
  missed = why;
  clearTimeout(missedTimer);
  missedTimer = setTimeout(() => miss(""), MISSED_MS);
  arrange();
}

// --- connection --------------------------------------------------------------------------------------------------

const veil = new Veil(
  { box: $("veil"), spinner: $("veil-spinner"), title: $("veil-title"), text: $("veil-text"), action: $("veil-action") },
  () => head.connect(),
);
let patience = 0;

function showStatus(state) {
  if ($("status").dataset.state === state) return;
  $("status").dataset.state = state;
  $("status-text").textContent = t(`status.${state}`);
}

head.addEventListener("state", ({ detail }) => {
  live = detail;
  clearTimeout(patience);
  ending.clear();
  showStatus(detail.state);
  if (detail.state === "live") {
    veil.hide();
    // A session that goes on keeps the numbers of what was said.
    if (head.session !== lastSession) transcript.seal();
    lastSession = head.session;
    microphone.track && head.setMicrophone(microphone.track);
  } else if (["connecting", "reconnecting"].includes(detail.state) && !detail.reason) {
    patience = setTimeout(() => veil.show(live, { name }), PATIENCE_MS);
  } else {
    veil.show(live, { name });
  }
  arrange();
});
head.addEventListener("ending", ({ detail }) => ending.tell(detail));
for (const sign of ["caption", "transcript", "user_speaking"]) head.addEventListener(sign, () => ending.heard());

addEventListener("online", () => live.state !== "live" && head.connect());
addEventListener("pagehide", () => {
  microphone.stop();
  head.close();
});
// Back from the browser's page cache: the session was given back when the page went away.
addEventListener("pageshow", (e) => e.persisted && (talk.stop(), head.connect()));
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
  firstSound.audible = !detail.muted;
  $("sound").setAttribute("aria-pressed", String(!detail.muted));
  $("sound").querySelector("use").setAttribute("href", detail.muted ? "#i-sound-off" : "#i-sound");
});

head.addEventListener("stream", ({ detail }) => (firstSound.stream = detail.stream));

// --- microphone --------------------------------------------------------------------------------------------------

const talk = new Talk({ box: $("talk"), button: $("talk-button"), label: $("talk-label") }, microphone, head);

talk.addEventListener("change", ({ detail }) => {
  if (detail.state === "asking") {
    soundChosen = false;
    wantSound();
  } else if (microphone.open) {
    notice.hush("microphone");
  }
  if (detail.state === "held") {
    miss("");
    wantSound();
  }
  if (panel.open) devices.refresh();
  arrange();
});
talk.addEventListener("tap", () => miss("tap"));
talk.addEventListener("failed", ({ detail }) => notice.tell(detail.error, { sticky: true }));
microphone.addEventListener("lost", () => notice.tell({ code: "microphone_lost" }, { sticky: true }));

/** @param {keyof WAYS} chosen */
function chooseWay(chosen) {
  way = conversation.way = chosen;
  if (WAYS[way].mode !== head.mode) head.setMode(WAYS[way].mode);
  heard.clear();
  talk.holds = WAYS[way].holds;
  // Also one that the browser still asks about.
  if (["typed", "say"].includes(way) && talk.state !== "off") talk.stop();
  else talk.refresh();
  introduce(faces);
}

// Allowed after all, in the browser's own menu: carry on without another click.
navigator.permissions?.query({ name: "microphone" }).then(
  (status) => status.addEventListener("change", () => status.state === "granted" && $("notice").dataset.code === "microphone_denied" && notice.hush("microphone")),
  () => {},
);

// --- speaking ----------------------------------------------------------------------------------------------------

head.addEventListener("speaking", ({ detail }) => {
  if (!detail.speaking) {
    captions.finish();
    firstSound.forget();
  }
  // Nobody knows the words of a file, but its name is known; the event may overtake the answer to the upload.
  else if (detail.label === "file") captions.show({ text: files.get(detail.utterance_id) ?? lastFile });
  arrange();
});
head.addEventListener("caption", ({ detail }) => {
  captions.show(detail);
  transcript.avatar(name, detail);
});
head.addEventListener("paused", () => captions.pause());
head.addEventListener("resumed", () => captions.resume());
head.addEventListener("interrupted", ({ detail }) => {
  captions.cut();
  transcript.cut(detail);
  firstSound.forget();
});
head.addEventListener("transcript", ({ detail }) => {
  if (detail.text) heard.show({ text: detail.text });
  if (!detail.final) return;
  heard.finish();
  if (detail.text) transcript.you(detail.text);
});
head.addEventListener("turn", ({ detail }) => {
  thinking = detail.state === "thinking";
  if (detail.state === "speaking") firstSound.expect(detail.turn_id);
  if (detail.state === "not_addressed") return miss("name");
  if (thinking && missed === "name") missed = ""; // the greeting, too, is a turn
  arrange();
});
head.addEventListener("error", ({ detail }) => notice.tell(detail));

function stop() {
  head.interrupt();
  captions.cut();
}

async function say(text) {
  wantSound();
  tried = true;
  notice.hush();
  try {
    await (head.mode === "converse" ? head.ask(text) : head.say(text));
    return true;
  } catch (error) {
    notice.tell(error);
    return false;
  }
}

$("stop").addEventListener("click", stop);
$("tries").addEventListener("click", (e) => e.target.closest("button") && say(e.target.closest("button").textContent));

// --- text box ----------------------------------------------------------------------------------------------------

const composer = new Composer({ form: $("composer"), text: $("text"), count: $("count"), send: $("send") }, () => head.config.text_max_chars, say);

new Files(
  {
    drop: $("drop"),
    button: $("file-button"),
    input: $("file"),
    box: $("upload"),
    name: $("upload-name"),
    progress: $("upload-progress"),
    cancel: $("upload-cancel"),
    choice: $("upload-choice"),
    plain: $("upload-plain"),
    changed: $("upload-changed"),
  },
  () => voice.otherName(name),
  async (file, { changed, ...options }) => {
    wantSound();
    tried = true;
    notice.hush();
    lastFile = file.name;
    const spoken = changed ? await speakConverted(head, file, voice.chosen, options) : await head.play(file, options);
    files.set(spoken.utterance_id, file.name);
  },
  (error) => notice.tell(error),
);

// --- the rest ----------------------------------------------------------------------------------------------------

const devices = new Devices(head, microphone, (id) => talk.start(id));
const faceList = new Faces(head, (choice) => {
  avatar = choice;
  head.setAttribute("avatar", choice);
  head.forgetStyle();
  introduce(faces);
  head.connect();
});
const panel = new Panel(head, {
  debug: query.has("debug"),
  opened: () => devices.refresh(),
  onQuality: (word) => {
    if (live.state === "live") showStatus(word === "Weak" ? "weak" : "live");
  },
});

const conversation = new Conversation(head, chooseWay);
const voice = new VoiceSettings(head);
new TranscriptView(transcript, () => name);
new EmbedDialog(head, () => shown());
conversation.addEventListener("change", arrange);

new BackgroundChoice(head, (error) => notice.tell(error));
new Display((shown) => (captions.visible = heard.visible = shown));
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));
head.addEventListener("shape", ({ detail }) => $("stage").style.setProperty("--shape", detail.ratio));

document.addEventListener("keydown", (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === "Escape" && !panel.open && head.speaking) return stop();
  if (e.target !== document.body) return;
  if (e.key === " " && !$("talk").hidden) {
    e.preventDefault();
    talk.key(e);
  } else if (e.key.length === 1 && e.key !== " ") {
    $("text").focus();
  }
});

let faces = [];

/** The face that is, or will be, connected. */
const shown = () => faces.find((a) => a.name === avatar) ?? faces.find((a) => a.default) ?? faces[0];

/** Show the name and the still of the face that is, or will be, connected. */
function introduce(list) {
  faces = list;
  const face = shown();
  if (!face) return;
  name = face.title ?? face.name;
  $("name").textContent = name;
  head.setAttribute("aria-label", t("portrait.of", { name }));
  const sentences = tries(WAYS[way].mode);
  [...$("tries").children].forEach((button, i) => (button.textContent = sentences[i]));
  $("text").placeholder = t(WAYS[way].mode === "converse" ? "text.ask" : "text.say", { name });
  head.poster = $("ambient").src = head.api.poster(face.name);
  $("ambient").hidden = false;
  faceList.show(list, face.name);
  faceList.showMoves(face.clips ?? []);
  conversation.showStyles(face);
  arrange();
}

language.addEventListener("change", () => {
  $("status-text").textContent = t(`status.${$("status").dataset.state}`);
  introduce(faces);
  arrange();
});

const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  head.api.admission = async () => ({ token });
  // Whoever copies the address passes the page on, and not the right to use it.
  history.replaceState(null, "", location.pathname + location.search);
}
if (avatar) head.setAttribute("avatar", avatar);
arrange();
// The poster and the connection do not wait for each other.
head.api.avatars().then(introduce, () => {});
offerStudio(head.api);
head.config = await head.api.config().catch(() => head.config);
composer.measure();
document.documentElement.dataset.label = head.config.ai_label === false ? "off" : "on";
panel.offerQuality(head.config);
conversation.show(head.config);
voice.show(head.config);
const wanted = { converse: "always" }[query.get("mode")] ?? query.get("mode");
chooseWay(wanted in WAYS ? wanted : head.mode === "converse" ? "always" : head.mode);
head.connect();
