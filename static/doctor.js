/**
 * The doctor's page: runs the checks, shows what they find, and puts it into words that can be copied.
 *
 * Place in the flow: `doctor-browser.js`, `doctor-sound.js` and `doctor-connection.js` look; the server looks at itself
 * (`GET doctor.json`); here all of it comes together.
 *
 * Invariants: a finding is replaced by a later one of the same check; in a frame only this side is looked at, because
 * what the server finds is nobody else's business.
 */

import { lookAtBrowser } from "./doctor-browser.js";
import { tryConnection } from "./doctor-connection.js";
import { count, finding, row, text, worst } from "./doctor-report.js";
import { heardSound, lookAtSound, playSound, tryMicrophone } from "./doctor-sound.js";

const GROUPS = {
  browser: "This browser",
  sound: "Microphone and speaker",
  way: "The way between",
  installation: "Installation",
  face: "Face",
  machine: "Machine",
  conversation: "Conversation",
  address: "Address and access",
  network: "Network",
};
const KEY = "visavis-api-key";
const COPIED_MS = 2000;

const $ = (id) => document.getElementById(id);
const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
const framed = window !== top;

const groups = new Map(Object.entries(GROUPS).map(([name, title]) => [name, { title, findings: [] }]));
/** Page tokens are good once; another check needs the page again. */
const admission = { avatar: meta("avatar"), token: meta("token"), pageToken: meta("page-token") };
let key = keptKey();
let busy = 0;

/** The API key that the studio or this page was given in this tab. */
function keptKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    // Browsers that keep nothing for frames of other sites refuse even to look.
    return "";
  }
}

async function examine() {
  busy += 1;
  for (const group of groups.values()) group.findings = [];
  $("server").replaceChildren();
  draw();
  await Promise.all([examineHere().catch(unfinished), framed ? null : examineServer()]);
  busy -= 1;
  draw();
}

/** A check that fails itself is told, and ends neither the page nor the others. */
function unfinished(error) {
  put("browser", [finding("unfinished", "warning", `A check of this browser failed itself: ${error.message}`, "Try another browser, and tell us which one this is.")]);
}

async function examineHere() {
  put("browser", await lookAtBrowser({ problem: meta("problem"), message: meta("message") }));
  put("sound", await lookAtSound());
  if (framed && meta("problem")) return;
  put("way", await tryConnection($("probe"), { ...admission, key }));
  $("probe").hidden = true;
}

async function examineServer() {
  $("server-wait").hidden = false;
  $("key-form").hidden = true;
  say("server-text", "Its checks take about ten seconds.", true);
  let report;
  try {
    const response = await fetch("doctor.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
    report = await response.json();
    if (!response.ok) {
      say("server-text", response.status === 401 ? "What is found on the server is told to holders of an API key." : report.error.message);
      $("key-form").hidden = response.status !== 401;
      return;
    }
  } catch {
    say("server-text", "The server gave no report. Run python -m server doctor there.");
    return;
  }
  $("server-wait").hidden = true;
  for (const name of Object.keys(GROUPS)) {
    const found = report.findings.filter((entry) => entry.group === name);
    if (!found.length) continue;
    groups.get(name).findings = found;
    const list = Object.assign(document.createElement("ul"), { id: name, className: "findings" });
    const title = Object.assign(document.createElement("h2"), { id: `h-${name}`, textContent: GROUPS[name] });
    const section = Object.assign(document.createElement("section"), { className: "group" });
    section.setAttribute("aria-labelledby", title.id);
    section.append(title, list);
    $("server").append(section);
  }
  draw();
}

/** Shows text beside a wheel that turns while something goes on. */
function say(id, words, waiting = false) {
  const wheel = Object.assign(document.createElement("i"), { className: "wheel" });
  wheel.setAttribute("aria-hidden", "true");
  $(id).replaceChildren(...(waiting ? [wheel, words] : [words]));
}

/** Adds findings to a group; those of the same check go. */
function put(name, findings) {
  const group = groups.get(name);
  const checks = new Set(findings.map((found) => found.check));
  group.findings = [...group.findings.filter((found) => !checks.has(found.check)), ...findings];
  draw();
}

function draw() {
  for (const [name, { findings }] of groups) $(name)?.replaceChildren(...findings.map(row));
  const all = [...groups.values()].flatMap((group) => group.findings);
  const verdict = worst(all);
  $("again").disabled = $("copy").disabled = busy > 0;
  $("verdict").dataset.verdict = busy ? "busy" : verdict;
  $("verdict-sign").setAttribute("href", `#v-${verdict === "note" ? "ok" : verdict}`);
  if (busy) return tell("Looking …", framed ? "This browser, and the way to the server." : "This browser, the way between, and the server.");
  const problems = count(all, "problem");
  const warnings = count(all, "warning");
  if (problems) return tell(problems === 1 ? "One thing does not work yet" : `${problems} things do not work yet`, "What to change stands below each of them.");
  if (warnings) return tell("It works, and could work better", `${warnings === 1 ? "One thing" : `${warnings} things`} to look at below.`);
  if (!framed && !groups.get("installation").findings.length) return tell("This side is well", "What the server finds is not known here yet.");
  return tell("All is well", `${all.length} checks, no problem.`);
}

function tell(title, words) {
  $("verdict-title").textContent = title;
  $("verdict-text").textContent = words;
}

$("again").addEventListener("click", () => {
  // The token of this frame is spent; the server gives another to the page that it gives again.
  if (admission.pageToken || admission.token) return location.reload();
  return examine();
});

$("copy").addEventListener("click", async () => {
  const report = text([...groups.values()]);
  try {
    await navigator.clipboard.writeText(report);
  } catch {
    // Frames and pages without https have no clipboard of that kind.
    const area = Object.assign(document.createElement("textarea"), { value: report });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("copy-label").textContent = "Copied";
  setTimeout(() => ($("copy-label").textContent = "Copy report"), COPIED_MS);
});

$("mic").addEventListener("click", async () => {
  $("mic").disabled = true;
  $("mic-label").textContent = "Say something …";
  $("meter").hidden = false;
  const found = await tryMicrophone((level) => {
    $("meter").style.setProperty("--level", level);
    $("meter").setAttribute("aria-valuenow", Math.round(level * 100));
  });
  put("sound", [found]);
  $("meter").hidden = true;
  $("mic-label").textContent = "Try the microphone";
  $("mic").disabled = false;
});

$("speaker").addEventListener("click", async () => {
  $("speaker").disabled = true;
  $("heard").hidden = true;
  await playSound();
  $("speaker").disabled = false;
  $("heard").hidden = false;
  $("heard-yes").focus();
});

for (const [id, heard] of [["heard-yes", true], ["heard-no", false]]) {
  $(id).addEventListener("click", () => {
    put("sound", [heardSound(heard)]);
    $("heard").hidden = true;
    $("speaker").focus();
  });
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem(KEY, key);
  $("key").value = "";
  examine();
});

document.body.classList.toggle("framed", framed);
$("server-side").hidden = framed;
const address = new URL("doctor", location.href).href;
$("frame-code").textContent = `<iframe src="${address}" allow="microphone; autoplay; fullscreen" referrerpolicy="origin" width="480" height="720"></iframe>`;
examine();
