/**
 * A finding, on the page and in the report that people copy into a letter.
 *
 * Place in the flow: checks make findings, `doctor.js` collects them; here they become rows and text.
 *
 * Invariant: nothing of a report names the person, the machine or its devices, and no key or token is in it: addresses of
 * pages are told as what kind they are.
 */

/** From good to bad. */
const VERDICTS = ["ok", "note", "warning", "problem"];

const WORDS = { ok: "Fine", note: "Worth knowing", warning: "Works worse", problem: "Does not work" };

/**
 * @typedef {{check: string, verdict: "ok"|"note"|"warning"|"problem", said: string, change: string}} Finding
 */

/**
 * @param {string} check a stable name
 * @param {Finding["verdict"]} verdict
 * @param {string} said one sentence
 * @param {string} [change] what to do about it
 * @returns {Finding}
 */
export const finding = (check, verdict, said, change = "") => ({ check, verdict, said, change });

/** The worst verdict of some findings. */
export function worst(findings) {
  return VERDICTS[Math.max(0, ...findings.map((found) => VERDICTS.indexOf(found.verdict)))];
}

/** How many findings have a verdict. */
export const count = (findings, verdict) => findings.filter((found) => found.verdict === verdict).length;

/** The row of a finding. */
export function row({ check, verdict, said, change }) {
  const item = document.createElement("li");
  item.dataset.check = check;
  item.dataset.verdict = verdict;
  const sign = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  sign.setAttribute("class", "sign");
  sign.setAttribute("role", "img");
  sign.setAttribute("aria-label", WORDS[verdict]);
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#v-${verdict}`);
  sign.append(use);
  item.append(sign, words("said", said));
  if (change) item.append(words("change", change));
  return item;
}

function words(kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  return line;
}

/**
 * The whole report as text.
 * @param {Array<{title: string, findings: Finding[]}>} groups
 */
export function text(groups) {
  const about = [
    `Visavis doctor, ${new Date().toISOString().slice(0, 16)}Z`,
    `Browser: ${navigator.userAgent}`,
    `Page: ${kindOfPage()}`,
  ];
  const told = groups
    .filter((group) => group.findings.length)
    .map((group) => [group.title, ...group.findings.map(line)].join("\n"));
  return `${[about.join("\n"), ...told].join("\n\n")}\n`;
}

const line = ({ verdict, said, change }) => `  ${verdict.padEnd(8)} ${said}${change ? `\n           -> ${change}` : ""}`;

function kindOfPage() {
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? "on this machine" : "of another machine";
  return `${location.protocol.replace(":", "")}, ${local}, ${window === top ? "not in a frame" : "in a frame"}`;
}
