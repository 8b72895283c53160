/**
 * What the page says about itself: the line under the controls, and sentences to begin with.
 *
 * Place in the flow: words only, for `app.js`; failures have theirs in `protocol.js`.
 */

/** Sentences to try: things to ask, and things that are fun to hear. */
export const TRIES = {
  converse: ["Hello! Who are you?", "What can you do?", "How do you work?"],
  say: ["Hello! It is good to see you.", "Peter Piper picked a peck of pickled peppers.", "How much wood would a woodchuck chuck?"],
};

/**
 * What happens, or would, when the person talks.
 * @param {"off"|"asking"|"on"|"muted"} state of the microphone
 * @param {{name: string, mode: "converse"|"mirror"|"say", thinking: boolean, canDrop: boolean}} about
 */
export function hint(state, { name, mode, thinking, canDrop }) {
  const mirrors = mode === "mirror";
  if (state === "asking") return "Your browser asks for the microphone: choose Allow.";
  if (state === "muted") return "Your microphone is muted.";
  if (state === "on" && mirrors) return `${name} repeats what you say in your own voice. Headphones keep it from hearing itself.`;
  if (state === "on" && mode === "converse") return thinking ? `${name} is thinking.` : `Talk to ${name}, and interrupt whenever you like.`;
  const file = canDrop ? ", or drop a sound file" : " below";
  if (mirrors) return `${name} repeats what you say, in your voice. Or type${file}.`;
  if (mode === "converse") return `You talk, ${name} answers. Or type${file}.`;
  return `${name} says what you type${file}.`;
}
