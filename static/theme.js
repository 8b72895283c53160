/**
 * Light or dark: as the system says, or as a person has chosen here.
 *
 * Place in the flow: runs before the page is drawn, so that nobody is blinded on the way to the dark; `display.js` changes it.
 *
 * The style sheet asks for the system's choice in one place. A choice made here is made by answering that question for it.
 */

import { recall, remember } from "./preferences.js";

const THEMES = ["light", "dark"];
const QUESTION = "(prefers-color-scheme: dark)";
const ANSWERS = { light: "not all", dark: "all" };

const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).filter((rule) => rule.media?.mediaText === QUESTION);
const colours = [...document.querySelectorAll('meta[name="theme-color"]')].map((meta) => ({ meta, media: meta.media }));

/** "light", "dark" or "system". */
export function chosenTheme() {
  const theme = recall("theme");
  return THEMES.includes(theme) ? theme : "system";
}

/** Choose one, now and for visits to come. */
export function chooseTheme(theme) {
  remember("theme", THEMES.includes(theme) ? theme : null);
  apply(theme);
}

function apply(theme) {
  document.documentElement.style.colorScheme = ANSWERS[theme] ? theme : "";
  for (const rule of rules) rule.media.mediaText = ANSWERS[theme] ?? QUESTION;
  for (const { meta, media } of colours) meta.media = ANSWERS[theme] ? (media.includes(theme) ? "all" : "not all") : media;
}

apply(chosenTheme());
