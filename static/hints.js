/**
 * What the page says about itself: the line under the controls, and sentences to begin with.
 *
 * Place in the flow: chooses the words that `app.js` shows; failures have theirs in `protocol.js`.
 */

import { t } from "./language.js";

/** Sentences to try: things to ask in a conversation, and things that are fun to hear in other modes. */
export function tries(mode) {
  const kind = mode === "converse" ? mode : "say";
  return [1, 2, 3].map((n) => t(`tries.${kind}.${n}`));
}

/**
 * What happens, or would, when the person talks.
 * @param {"off"|"asking"|"on"|"muted"|"ready"|"held"} state of the microphone
 * @param {{name: string, way: keyof import("./conversation.js").WAYS, thinking: boolean, missed: "tap"|"name"|"", wakeWord: string, canDrop: boolean}} about
 *   missed: why what was just said is not answered; wakeWord: what an answer needs to begin with, or ""
 */
export function hint(state, { name, way, thinking, missed, wakeWord, canDrop }) {
  const say = (which) => t(`hint.${which}`, { name, wake: wakeWord });
  if (state === "asking" || state === "muted") return say(state);
  if (missed) return say(missed === "name" ? "missed" : missed);
  if (thinking) return say("thinking");
  if (state === "held") return say("held");
  if (state === "ready") return say(canDrop ? "ready.space" : "ready");
  if (state === "on") return say(way === "mirror" ? "mirroring" : wakeWord ? "wake" : "on");
  return say(canDrop && way !== "typed" ? `${way}.drop` : way);
}
