/**
 * A sound file in another voice: sent, changed by the server, and spoken by the avatar.
 *
 * Place in the flow: between `files.js`, which shows progress and may cancel, and the server's conversions.
 *
 * Invariant: a conversion that this page began is given up by it, whatever ends it here, so that the server's memory is free again.
 */

import { t } from "./language.js";
import { problem, Problem } from "./protocol.js";

const POLL_MS = 400;

/**
 * @param {import("./talking-head.js").TalkingHead} head
 * @param {File} file
 * @param {{pitch: number, formant: number, conversion: string}} voice
 * @param {{onProgress: (fraction: number) => void, onPhase: (words: string) => void, signal: AbortSignal}} options
 * @returns {Promise<{utterance_id: number}>} what the avatar says now
 * @throws {import("./protocol.js").Problem} as the server's routes; AbortError when cancelled
 */
export async function speakConverted(head, file, voice, { onProgress, onPhase, signal }) {
  if (file.size > head.config.audio_max_bytes) throw problem("file_too_large");
  if (!head.session) throw problem("not_connected");
  let { id, state, progress, error } = await head.api.convert(head.session, file, voice, { onProgress, signal });
  try {
    onPhase(t("file.changing"));
    while (state !== "done") {
      if (state === "failed") throw new Problem(error?.code ?? "conversion_failed", error?.message ?? t("failure.conversion_failed"));
      onProgress(progress);
      await pause(POLL_MS, signal);
      ({ state, progress, error } = await head.api.conversion(id, signal));
    }
    if (!head.session) throw problem("not_connected");
    return await head.api.speakConversion(head.session, id);
  } finally {
    // What is queued to be spoken is the session's own by now.
    head.api.forgetConversion(id).catch(() => {});
  }
}

/** Resolves after a while; rejects at once when aborted. */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    const abort = () => {
      clearTimeout(timer);
      reject(new DOMException("Cancelled.", "AbortError"));
    };
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
  });
}
