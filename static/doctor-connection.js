/**
 * A real connection to the server: by which ways, how long until the first picture, and whether the relay can be reached.
 *
 * Place in the flow: `doctor.js` runs it after the browser was looked at; it opens a session as the page does and closes it.
 *
 * Invariants: whatever happens, the session is closed again; nobody is asked for a microphone.
 */

import { finding } from "./doctor-report.js";

const GATHER_MS = 3000;
const CONNECT_MS = 10_000;
const PICTURE_MS = 6000;
/** Longer than this until the first picture is noticed, milliseconds. */
const SLOW_MS = 2500;

const WAYS = { host: "directly", srflx: "through a router", prflx: "through a router", relay: "through a relay" };

/**
 * Connects, waits for a picture and leaves.
 *
 * @param {HTMLVideoElement} video shows what arrives
 * @param {{avatar: string, token: string, pageToken: string, key: string}} shown what lets this page in, where something does
 * @returns {Promise<import("./doctor-report.js").Finding[]>}
 */
export async function tryConnection(video, shown) {
  if (typeof RTCPeerConnection === "undefined") return [];
  const found = [];
  let admission;
  try {
    admission = await admit(shown);
  } catch (error) {
    return [refused(error)];
  }
  const relays = admission.iceServers.filter((server) => [server.urls].flat().some((url) => url.startsWith("turn")));
  if (relays.length) found.push(await tryRelay(relays));
  const pc = new RTCPeerConnection({ iceServers: admission.iceServers, bundlePolicy: "max-bundle" });
  let session = "";
  try {
    found.push(...(await connect(pc, video, admission, (id) => (session = id))));
  } catch (error) {
    found.push(refused(error));
  } finally {
    video.srcObject = null;
    // The other way round the session may have ended by itself before it is asked to.
    const closed = session ? fetch(`sessions/${session}/close`, { method: "POST", keepalive: true }) : Promise.resolve();
    closed.catch(() => {}).finally(() => pc.close());
  }
  return found;
}

/** A failure that the server has explained. */
class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function admit({ avatar, token, pageToken, key }) {
  const config = await ask("GET", "config.json");
  if (!token && !pageToken && !key) return { avatar, token, iceServers: config.ice_servers ?? [] };
  if (token) return { avatar, token, iceServers: config.ice_servers ?? [] };
  const minted = await ask("POST", "tokens", pageToken ? { page_token: pageToken } : {}, key);
  return { avatar, token: minted.token, iceServers: minted.ice_servers ?? [] };
}

async function connect(pc, video, { avatar, token }, opened) {
  const started = performance.now();
  const since = () => Math.round(performance.now() - started);
  const kinds = new Set();
  pc.onicecandidate = ({ candidate }) => candidate?.type && kinds.add(candidate.type);
  const stream = new MediaStream();
  pc.ontrack = ({ track }) => stream.addTrack(track);
  pc.addTransceiver("audio", { direction: "recvonly" });
  pc.addTransceiver("video", { direction: "recvonly" });
  const connected = state(pc);
  await pc.setLocalDescription(await pc.createOffer());
  await gathered(pc);
  const gatheredMs = since();
  const body = { sdp: pc.localDescription.sdp, type: pc.localDescription.type, mode: "say" };
  if (avatar) body.avatar = avatar;
  if (token) body.token = token;
  const answer = await ask("POST", "offer", body);
  opened(answer.session_id);
  const answeredMs = since();
  await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
  if (!(await within(connected, CONNECT_MS))) return [noWay(kinds)];
  const connectedMs = since();
  const picture = firstPicture(video);
  video.srcObject = stream;
  video.hidden = false;
  video.play().catch(() => {});
  const arrived = await within(picture, PICTURE_MS);
  const pictureMs = since();
  const report = await pc.getStats();
  const route = way(report);
  const times = `offer ready after ${gatheredMs} ms, answered after ${answeredMs} ms, connected after ${connectedMs} ms`;
  const found = [finding("connection", "ok", `Connected ${route.words}: ${times}.`)];
  if (!arrived) {
    found.push(finding("first_picture", "problem", "It is connected, but no picture arrives.", "Let UDP pass in both directions all the time, not only at first; or this browser cannot decode what is sent: try --video-codec vp8."));
  } else if (pictureMs > SLOW_MS) {
    found.push(finding("first_picture", "warning", `The first picture arrived after ${pictureMs} ms.`, whySlow(gatheredMs, answeredMs)));
  } else {
    found.push(finding("first_picture", "ok", `The first picture arrived after ${pictureMs} ms${codec(report)}.`));
  }
  const offered = [...kinds].sort().join(", ") || "none";
  found.push(finding("candidates", "ok", `This browser offered candidates of these kinds: ${offered}; used: ${route.kinds}.`));
  return found;
}

/** Where most of a slow start was spent. */
function whySlow(gatheredMs, answeredMs) {
  if (answeredMs - gatheredMs > SLOW_MS / 2) return "The server took long to answer: a STUN or TURN server that it cannot reach holds it up, or it is busy.";
  if (gatheredMs > SLOW_MS / 2) return "This browser waited for a STUN or TURN server that does not answer from here: mend it, or take it out.";
  return "The way is slow, or the server is busy: its speed is told beside.";
}

/** Whether a relay can be had: only candidates of that kind are asked for. */
async function tryRelay(iceServers) {
  const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: "relay" });
  try {
    let found = false;
    const relayed = new Promise((resolve) => {
      pc.onicecandidate = ({ candidate }) => {
        if (candidate?.type === "relay") resolve((found = true));
        else if (!candidate) resolve(false);
      };
    });
    pc.createDataChannel("relay");
    await pc.setLocalDescription(await pc.createOffer());
    await within(relayed, CONNECT_MS);
    if (found) return finding("relay", "ok", "The relay (TURN) can be reached from here.");
    return finding("relay", "warning", "The relay (TURN) cannot be reached from here, or refuses the credentials.", "Let this network pass UDP and TCP port 3478, or give coturn a turns: address on port 443; the server's own check beside tells whether the credentials are right.");
  } finally {
    pc.close();
  }
}

function noWay(kinds) {
  const relay = kinds.has("relay") ? "Even the relay was not enough: see that coturn may relay to the server's address." : "On another network than the server's it takes a TURN server: --turn-urls and --turn-secret.";
  return finding("connection", "problem", "The server answered, but no UDP gets through between this browser and it.", `Let firewalls pass UDP to the server; a VPN may block it too. ${relay}`);
}

function refused(error) {
  const known = {
    key_required: ["note", "Without a key or token the connection was not tried.", "Type an API key where the server's findings are."],
    server_full: ["note", "All places are taken, so the connection was not tried.", "Check again when somebody has left."],
    too_many_requests: ["note", "Too much was asked from here in the last minute, so the connection was not tried.", "Check again in a minute."],
    server_gone: ["problem", "The server does not answer this browser.", "See that it still runs; its log says why it ended."],
  };
  return finding("connection", ...(known[error.code] ?? ["problem", `The connection cannot be made: ${error.message}`, ""]));
}

async function ask(method, path, body, key = "") {
  let response;
  try {
    const headers = { ...(body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refusal("server_gone", "");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(answer.error?.code ?? "", answer.error?.message ?? `status ${response.status}.`);
  return answer;
}

/** Resolves with whether a connection has come about. */
function state(pc) {
  return new Promise((resolve) => {
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "connected") resolve(true);
      else if (["failed", "closed"].includes(pc.connectionState)) resolve(false);
    };
  });
}

function gathered(pc) {
  return within(
    new Promise((resolve) => {
      const check = () => pc.iceGatheringState === "complete" && resolve(true);
      pc.onicegatheringstatechange = check;
      check();
    }),
    GATHER_MS,
  );
}

/** Resolves with true at the first picture that is shown. */
function firstPicture(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(() => resolve(true));
    else video.addEventListener("loadeddata", () => resolve(true), { once: true });
  });
}

/** By which way packets go: in words, and the kinds of both ends. */
function way(report) {
  const all = [...report.values()];
  const transport = all.find((s) => s.type === "transport") ?? {};
  const pair = report.get(transport.selectedCandidatePairId) ?? all.find((s) => s.type === "candidate-pair" && s.nominated) ?? {};
  const local = report.get(pair.localCandidateId) ?? {};
  const remote = report.get(pair.remoteCandidateId) ?? {};
  const relayed = [local, remote].find((end) => end.candidateType === "relay");
  const words = WAYS[relayed ? "relay" : local.candidateType] ?? "somehow";
  const over = (local.relayProtocol ?? local.protocol ?? "").toUpperCase();
  return { words: over ? `${words} over ${over}` : words, kinds: `${local.candidateType ?? "unknown"} here, ${remote.candidateType ?? "unknown"} there` };
}

function codec(report) {
  const video = [...report.values()].find((s) => s.type === "inbound-rtp" && s.kind === "video");
  const name = report.get(video?.codecId)?.mimeType?.replace("video/", "");
  return name ? `, as ${name.replace("H264", "H.264")}` : "";
}

/** What a promise resolves with, or false when that takes longer than `limitMs`. */
function within(promise, limitMs) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), limitMs);
    promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}
