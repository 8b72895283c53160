/**
 * The studio's side of the server: what may be made, sending a file, following a job, deleting an avatar.
 *
 * Place in the flow: `studio.js` and `studio-shelf.js` call it; nothing here touches the page.
 *
 * Invariants: every failure is a `Problem` with the server's code and sentence; what is followed is told in order, and
 * ends with a state that is final, however often the line breaks.
 */

import { Problem } from "./protocol.js";

const OVER = new Set(["done", "failed", "cancelled"]);
const POLL_MS = 1500;

const KEY = "visavis-api-key";
const GONE = "The server does not answer. It may be starting, or your network is away.";

/** What shows who asks, where the server wants to know; kept until the tab is closed. */
const bearer = () => (sessionStorage.getItem(KEY) ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

/** Show an API key from now on. */
export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** Whether a failure means that a key is wanted, or another one. */
export const wantsKey = (error) => ["key_required", "key_unknown"].includes(error.code);

async function call(method, path) {
  let response;
  try {
    response = await fetch(path, { method, headers: bearer() });
  } catch {
    throw new Problem("server_gone", GONE);
  }
  if (response.status === 204) return {};
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw problemOf(response.status, body);
  return body;
}

function problemOf(status, body) {
  return new Problem(body?.error?.code ?? `http_${status}`, body?.error?.message ?? `The server answered ${status}.`, { status });
}

/** @returns {Promise<{enabled: boolean, note: string, made: number, max_avatars: number, max_bytes: number, max_clip_s: number}>} */
export const studio = () => call("GET", "studio.json");

/** Avatars that were made here. */
export const made = async () => (await call("GET", "avatars")).avatars.filter((avatar) => avatar.made_here);

export const poster = (name) => `avatars/${encodeURIComponent(name)}/poster.jpg`;
export const preview = (name) => `avatars/${encodeURIComponent(name)}/preview.mp4`;
export const remove = (name) => call("DELETE", `avatars/${encodeURIComponent(name)}`);
export const cancel = (job) => call("DELETE", `avatars/${job}/job`);

/**
 * Send a photo or clip with what is to become of it.
 *
 * XMLHttpRequest, because fetch cannot tell how much of an upload has gone.
 * @param {Record<string, string>} fields
 * @param {Blob} file
 * @param {{onProgress: (share: number) => void, signal: AbortSignal}} options
 * @returns {Promise<{id: string, name: string, state: string}>} the job
 */
export function send(fields, file, { onProgress, signal }) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, "upload");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "avatars");
    request.responseType = "json";
    for (const [name, value] of Object.entries(bearer())) request.setRequestHeader(name, value);
    request.upload.onprogress = (e) => e.lengthComputable && onProgress(e.loaded / e.total);
    request.onerror = () => reject(new Problem("server_gone", GONE));
    request.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
    request.onload = () => (request.status < 300 ? resolve(request.response) : reject(problemOf(request.status, request.response)));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/**
 * Tell a job as it goes on.
 * @param {string} id
 * @param {(job: {state: string, stage: string, progress: number}) => void} tell
 * @returns {Promise<object>} the job when it is over; rejects when the server no longer knows it
 */
export function follow(id, tell) {
  return new Promise((resolve, reject) => {
    const stream = new EventSource(`avatars/${id}/job/events`);
    let timer = 0;
    let over = false;
    const end = (settle, value) => {
      over = true;
      stream.close();
      clearTimeout(timer);
      settle(value);
    };
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(ask, POLL_MS);
    };
    const take = (job) => !over && (OVER.has(job.state) ? end(resolve, job) : tell(job));
    stream.addEventListener("job", (e) => take(JSON.parse(e.data)));
    // A proxy may not let streams through; asking now and then always works.
    const ask = async () => {
      try {
        take(await call("GET", `avatars/${id}/job`));
      } catch (error) {
        if (error.code !== "server_gone") return end(reject, error);
      }
      // Either of the two may have seen the end.
      if (!over && stream.readyState !== EventSource.OPEN) later();
      return undefined;
    };
    stream.onerror = later;
  });
}
