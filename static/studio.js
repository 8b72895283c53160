/**
 * The avatar studio: choose or film, say who agreed, watch it being made, see it speak.
 *
 * Place in the flow: the page's only script; `studio-api.js` talks to the server, `studio-camera.js` to the camera,
 * `studio-shelf.js` shows what was made.
 *
 * Invariants: one job at a time; a job that was begun is found again after a reload; nothing a person typed is lost
 * by a failure.
 */

import { cancel, follow, preview, send, studio, useKey, wantsKey } from "./studio-api.js";
import { Camera } from "./studio-camera.js";
import { Shelf } from "./studio-shelf.js";

const $ = (id) => document.getElementById(id);
const FILM_S = 10;
const JOB_KEY = "visavis-studio-job";
/** Of the whole, until the file has arrived; the rest is the work. */
const SENT_SHARE = 0.12;

/** What a stage of the work is called here; stages that are not listed keep the title of the one before. */
const STAGES = {
  starting: "Opening the picture",
  reading: "Opening the picture",
  "finding the face": "Finding the face",
  "outlining head and eyes": "Outlining head and eyes",
  "bringing it to life": "Bringing it to life",
  "following the face": "Following the face",
  cutting: "Cutting the portrait",
  "bringing the mouth to rest": "Bringing the mouth to rest",
  "closing the loop": "Closing the loop",
  saving: "Saving",
  speaking: "Rehearsing a sentence",
};

const TITLES = {
  no_face: "No face was found",
  several_faces: "There is more than one face",
  source_type: "This kind of file cannot be used",
  source_too_large: "The file is too large",
  body_too_large: "The file is too large",
  source_too_long: "The clip is too long",
  source_appended: "This is not a plain picture",
  disk_full: "The server's disk is full",
  studio_full: "The shelf is full",
  studio_busy: "Others are at work",
  avatar_in_use: "It is in use",
  camera_denied: "The camera is blocked",
  camera_missing: "No camera",
  camera_busy: "The camera is in use",
  camera_lost: "The camera went away",
  key_required: "A key is needed",
  key_unknown: "This key is not known",
  server_gone: "The server does not answer",
};

let limits = { enabled: true, note: "", max_bytes: 200_000_000, max_clip_s: 120, max_avatars: 20 };
let file = null;
let address = "";
let sending = null;
let job = "";
let shown = "";

const camera = new Camera($("finder"), leaveCamera);
const shelf = new Shelf((avatar) => !sending && !job && present(avatar), tell, (action) => withKey(action));

// --- words -------------------------------------------------------------------------------------------------------

function tell(error) {
  if (error.name === "AbortError") return;
  $("notice-title").textContent = `${TITLES[error.code] ?? "That did not work"}.`;
  $("notice-text").textContent = error.message;
  $("notice").hidden = false;
  $("notice").scrollIntoView({ block: "nearest" });
}

/** Do something; where the server wants an API key for it, ask for one and do it again. */
async function withKey(action) {
  try {
    return await action();
  } catch (error) {
    if (!wantsKey(error)) throw error;
    $("key").value = "";
    $("key-ask").returnValue = "no";
    $("key-ask").showModal();
    await new Promise((resolve) => $("key-ask").addEventListener("close", resolve, { once: true }));
    if ($("key-ask").returnValue !== "yes" || !$("key").value.trim()) throw error;
    useKey($("key").value.trim());
    return action();
  }
}

function hush() {
  $("notice").hidden = true;
}

function view(name) {
  $("easel").dataset.view = name;
  $("questions").hidden = name === "made";
  $("result").hidden = name !== "made";
  if (name !== "camera") camera.close();
  if (name !== "made") $("preview").pause();
  arrange();
}

/** What can be pressed now, and what is still missing. */
function arrange() {
  const making = $("easel").dataset.view === "making";
  for (const control of $("questions").querySelectorAll("input")) control.disabled = making || !limits.enabled;
  for (const id of ["pick", "film"]) $(id).disabled = !limits.enabled;
  $("make").disabled = making || !file || !limits.enabled;
  $("make-hint").textContent = file || making ? "" : limits.enabled ? "Choose a photo or a clip first." : "The studio is switched off.";
}

// --- a picture ---------------------------------------------------------------------------------------------------

function choose(blob) {
  if (!blob) return;
  hush();
  if (blob.size > limits.max_bytes) {
    tell({ code: "source_too_large", message: `At most ${Math.round(limits.max_bytes / 1e6)} MB fit. Choose a shorter clip or a smaller photo.` });
    return;
  }
  if (blob.type && !/^(image|video)\//.test(blob.type)) {
    tell({ code: "source_type", message: "Choose a photo (jpg, png, webp) or a clip (mp4, mov, webm)." });
    return;
  }
  file = blob;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(blob);
  const moving = blob.type.startsWith("video/");
  $("still").hidden = moving;
  $("clip").hidden = !moving;
  $("still").src = moving ? "" : address;
  $("clip").src = moving ? address : "";
  if (moving) $("clip").play().catch(() => {});
  else $("still").alt = "The photo you chose";
  view("chosen");
  if (!$("title").value) $("title").focus({ preventScroll: true });
}

function forget() {
  file = null;
  URL.revokeObjectURL(address);
  address = "";
  $("still").removeAttribute("src");
  $("clip").removeAttribute("src");
  $("file").value = "";
}

$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => choose($("file").files[0]));
$("again").addEventListener("click", () => {
  forget();
  view("empty");
  $("pick").focus();
});
$("notice-close").addEventListener("click", hush);

let depth = 0;
const carriesFile = (e) => limits.enabled && e.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (e) => carriesFile(e) && ($("drop").hidden = ++depth === 0));
addEventListener("dragleave", (e) => carriesFile(e) && ($("drop").hidden = --depth <= 0));
addEventListener("dragover", (e) => carriesFile(e) && e.preventDefault());
addEventListener("drop", (e) => {
  if (!carriesFile(e)) return;
  e.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  if (!sending && !job) choose(e.dataTransfer.files[0]);
});

// --- the camera --------------------------------------------------------------------------------------------------

const TIP = $("tip").textContent;

$("film").addEventListener("click", async () => {
  hush();
  try {
    if (!(await camera.open())) return;
    $("tip").textContent = TIP;
    view("camera");
    $("shoot").focus();
  } catch (error) {
    tell(error);
  }
});
/** Back to what was there before the camera, because of an error if there is one. */
function leaveCamera(error) {
  view(file ? "chosen" : "empty");
  if (error) tell(error);
}

$("leave").addEventListener("click", () => leaveCamera());
$("shoot").addEventListener("click", () => camera.photo().then(choose, tell));
$("record").hidden = !Camera.films;
$("record").addEventListener("click", async () => {
  if (camera.recording) return;
  $("record").setAttribute("aria-pressed", "true");
  $("shoot").hidden = true;
  $("tip").textContent = "Look into the camera, lips closed, and breathe. Blinking is fine.";
  try {
    choose(await camera.film(FILM_S, (left) => ($("record-label").textContent = `${left} s`)));
  } catch (error) {
    leaveCamera(error);
  } finally {
    $("record").setAttribute("aria-pressed", "false");
    $("record-label").textContent = `Film ${FILM_S} s`;
    $("shoot").hidden = false;
  }
});
addEventListener("pagehide", () => camera.close());

// --- the questions -----------------------------------------------------------------------------------------------

const kind = () => $("form").elements.kind.value;

function ask() {
  const real = kind() === "real";
  $("consent").hidden = !real;
  $("synthetic").hidden = real;
}

const local = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
$("consent_when").value = $("consent_when").max = local;
$("form").addEventListener("change", ask);
$("form").addEventListener("input", (e) => e.target.removeAttribute("aria-invalid"));

/** The form's fields, or null when something is missing, which is then marked and named. */
function answers() {
  const names = kind() === "real" ? ["title", "consent_who", "consent_when", "consent_scope", "agreed"] : ["title"];
  const missing = names.map($).filter((input) => (input.type === "checkbox" ? !input.checked : !input.value.trim() || !input.checkValidity()));
  for (const input of missing) input.setAttribute("aria-invalid", "true");
  if (missing.length) {
    $("make-hint").textContent = missing[0] === $("title") ? "Give it a name." : "Say who agreed, when, and to what.";
    missing[0].focus();
    return null;
  }
  const fields = { title: $("title").value };
  if ($("sentence").value.trim()) fields.sentence = $("sentence").value;
  if (kind() === "synthetic") return { ...fields, synthetic: "yes" };
  for (const name of ["consent_who", "consent_when", "consent_scope"]) fields[name] = $(name).value;
  return fields;
}

// --- the work ----------------------------------------------------------------------------------------------------

function progress(share, title) {
  $("ring").style.strokeDashoffset = String(1 - share);
  $("progress").value = share;
  if (title && $("stage-title").textContent !== title) $("stage-title").textContent = title;
}

$("form").addEventListener("submit", async (e) => {
  e.preventDefault();
  const fields = file && answers();
  if (!fields || sending || job) return;
  hush();
  progress(0, "Sending");
  sending = new AbortController();
  view("making");
  try {
    const options = { signal: sending.signal, onProgress: (share) => progress(SENT_SHARE * share) };
    const begun = await withKey(() => send(fields, file, options));
    sending = null;
    await watch(begun.id);
  } catch (error) {
    sending = null;
    tell(error);
    view("chosen");
  }
});

/** Follow a job to its end and show what came of it. */
async function watch(id) {
  job = id;
  sessionStorage.setItem(JOB_KEY, id);
  try {
    const end = await follow(id, ({ state, stage, progress: share }) => {
      const title = state === "queued" ? "Waiting for its turn" : STAGES[stage];
      progress(SENT_SHARE + (1 - SENT_SHARE) * share, title);
    });
    if (end.state === "done") {
      forget();
      $("form").reset();
      $("consent_when").value = local;
      ask();
      present(end);
      await shelf.refresh(limits.max_avatars);
    } else {
      if (end.state === "failed") tell(end.error);
      view(file ? "chosen" : "empty");
    }
  } finally {
    job = "";
    sessionStorage.removeItem(JOB_KEY);
  }
}

$("cancel").addEventListener("click", async () => {
  if (sending) return sending.abort();
  // It may be over by now, and then there is nothing to say about it.
  if (job) await cancel(job).catch((error) => error.code !== "job_over" && tell(error));
  return undefined;
});

/** Show an avatar speaking. */
function present({ name, title }) {
  shown = name;
  $("made-name").textContent = title;
  $("result-title").textContent = title;
  $("use").textContent = `Talk with ${title}`;
  $("use").href = `./?avatar=${encodeURIComponent(name)}`;
  $("preview").src = preview(name);
  view("made");
  $("easel").scrollIntoView({ block: "nearest" });
  // Without a fresh click the browser may want one first: the controls are there.
  $("preview").play().catch(() => {});
  $("result-title").focus({ preventScroll: true });
}

$("another").addEventListener("click", () => view(file ? "chosen" : "empty"));
addEventListener("avatar-deleted", ({ detail }) => detail === shown && $("easel").dataset.view === "made" && view(file ? "chosen" : "empty"));

// --- begin -------------------------------------------------------------------------------------------------------

ask();
arrange();
try {
  limits = await studio();
  const fits = `at most ${Math.round(limits.max_bytes / 1e6)} MB, ${Math.round(limits.max_clip_s)} s`;
  $("limits").textContent = matchMedia("(pointer: fine)").matches ? `or drop it here · ${fits}` : fits;
  if (limits.note) {
    $("notice-title").textContent = limits.enabled ? "Something is missing." : "The studio is switched off.";
    $("notice-text").textContent = limits.note;
    $("notice").hidden = false;
  }
  await shelf.refresh(limits.max_avatars);
} catch (error) {
  tell(error);
}
arrange();
const begun = sessionStorage.getItem(JOB_KEY);
if (begun) {
  progress(SENT_SHARE, "Picking it up again");
  view("making");
  watch(begun).catch(() => view("empty"));
}
