/**
 * The page of a broadcast: a portrait to look at, with its sound, and nothing to say.
 *
 * Place in the flow: the top, beside `app.js`; `<talking-head watch>` connects. Query options: `?id=` which broadcast, `?lang=en|zh`.
 * `window.visavis` is the TalkingHead, for benchmarks and the curious.
 *
 * Invariant: it asks for no permission, neither of the browser nor of the server: who knows the id may watch.
 */

import { language, t, translate } from "./language.js";
import "./talking-head.js";
import { Veil } from "./veil.js";

/** A connection that takes less than this needs no words: the poster is already there. */
const PATIENCE_MS = 1500;

const $ = (id) => document.getElementById(id);
const id = new URLSearchParams(location.search).get("id") ?? "";
const head = $("head");
const veil = new Veil(
  { box: $("veil"), spinner: $("veil-spinner"), title: $("veil-title"), text: $("veil-text"), action: $("veil-action") },
  () => head.connect(),
);

let name = t("portrait.nobody");
let patience = 0;
let live = { state: "new" };

window.visavis = head;
translate();

function showStatus() {
  const state = $("status").dataset.state;
  $("status-text").textContent = t(`status.${state}`);
  head.setAttribute("aria-label", t("portrait.of", { name }));
}

head.addEventListener("state", ({ detail }) => {
  live = detail;
  clearTimeout(patience);
  $("status").dataset.state = detail.state;
  showStatus();
  if (detail.state === "live") veil.hide();
  else if (["connecting", "reconnecting"].includes(detail.state) && !detail.reason) patience = setTimeout(() => veil.show(live, { name }), PATIENCE_MS);
  else veil.show(live, { name });
});

head.addEventListener("sound", ({ detail }) => {
  $("sound").setAttribute("aria-pressed", String(!detail.muted));
  $("sound").querySelector("use").setAttribute("href", detail.muted ? "#i-sound-off" : "#i-sound");
});
head.addEventListener("shape", ({ detail }) => $("stage").style.setProperty("--shape", detail.ratio));

$("sound").addEventListener("click", () => (head.muted = !head.muted));
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen()));

addEventListener("online", () => live.state !== "live" && head.connect());
addEventListener("pagehide", () => head.close());
addEventListener("pageshow", (e) => e.persisted && head.connect());
document.addEventListener("visibilitychange", () => !document.hidden && live.retryAt && head.connect());
language.addEventListener("change", showStatus);

function introduce(broadcast) {
  name = broadcast.title;
  document.title = `${name} · Visavis`;
  $("name").textContent = name;
  head.poster = $("ambient").src = head.api.poster(broadcast.avatar);
  $("ambient").hidden = false;
  $("stage").style.setProperty("--shape", broadcast.width / broadcast.height);
  showStatus();
}

head.setAttribute("watch", id);
// The poster and the connection do not wait for each other.
head.api.broadcast(id).then(introduce, () => {});
head.config = await head.api.config().catch(() => head.config);
document.documentElement.dataset.label = head.config.ai_label === false ? "off" : "on";
head.muted = false;
head.connect();
