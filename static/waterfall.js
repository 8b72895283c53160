/**
 * Where the time of the last answer went, drawn as steps: each bar begins where the one above it ends.
 *
 * Place in the flow: fed by `panel.js` with the server's `latency` events; shown in the settings and in the developer's readout.
 */

import { has, t } from "./language.js";

/** What a step is called; one that the page does not know has the server's name. */
const nameOf = (stage) => (has(`latency.${stage}`) ? t(`latency.${stage}`) : stage.replaceAll("_", " "));

/**
 * Draw the steps of one turn.
 * @param {HTMLElement} list an `ol`
 * @param {Record<string, number>} stagesMs milliseconds from the end of what the person said, in the order in which they follow
 */
export function drawWaterfall(list, stagesMs) {
  const steps = Object.entries(stagesMs);
  const longest = Math.max(1, ...steps.map(([, ms]) => ms));
  let fromMs = 0;
  list.replaceChildren(
    ...steps.map(([stage, ms]) => {
      const row = document.createElement("li");
      const name = Object.assign(document.createElement("span"), { textContent: nameOf(stage) });
      const bar = document.createElement("i");
      const value = Object.assign(document.createElement("b"), { textContent: `${ms} ms` });
      // A step that was taken early, such as a voice that was ready before it was asked, is a line and never goes back.
      bar.style.setProperty("--from", Math.min(fromMs, ms) / longest);
      bar.style.setProperty("--to", ms / longest);
      fromMs = ms;
      row.dataset.stage = stage;
      row.append(name, bar, value);
      return row;
    }),
  );
}
