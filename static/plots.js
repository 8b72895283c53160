/**
 * The last minute in small plots, for developers: how many pictures, how many bits, how even, how costly, how good.
 *
 * Place in the flow: `panel.js` adds a sample a second while the developer's view is shown.
 */

import { language, t } from "./language.js";

const SAMPLES = 60;
/** Logical size of a plot, and what the line keeps clear of its edges, pixels. */
const WIDTH = 252;
const HEIGHT = 34;
const EDGE = 3;
const LINE = "#41dc9b";
const AREA = "#41dc9b29";

/** What is plotted, and a scale that its values fill at least, so that noise does not look like news. */
const SERIES = { fps: 30, kbit: 500, jitter: 20, model: 40, level: 5 };

export class Plots {
  #rows = {};

  /** @param {HTMLElement} box */
  constructor(box) {
    for (const name of Object.keys(SERIES)) {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const [title, value] = [document.createElement("span"), document.createElement("b")];
      caption.append(title, value);
      const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH * devicePixelRatio, height: HEIGHT * devicePixelRatio });
      canvas.setAttribute("aria-hidden", "true");
      figure.append(caption, canvas);
      figure.dataset.series = name;
      this.#rows[name] = { title, value, canvas, samples: [] };
      box.append(figure);
    }
    this.#name();
    language.addEventListener("change", () => this.#name());
  }

  /** @param {Record<keyof SERIES, number|null|undefined>} values of this second; null where there is none */
  add(values) {
    for (const [name, row] of Object.entries(this.#rows)) {
      const value = Number.isFinite(values[name]) ? values[name] : null;
      row.samples.push(value);
      if (row.samples.length > SAMPLES) row.samples.shift();
      row.value.textContent = value === null ? "–" : String(Math.round(value * 10) / 10);
      draw(row.canvas, row.samples, SERIES[name]);
    }
  }

  #name() {
    for (const [name, { title }] of Object.entries(this.#rows)) title.textContent = t(`plot.${name}`);
  }
}

/** A line from the left edge, a minute ago, to the right one, now; broken where there was no value. */
function draw(canvas, samples, least) {
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, WIDTH, HEIGHT);
  const most = Math.max(least, ...samples.map((value) => value ?? 0));
  const x = (i) => EDGE + ((i + SAMPLES - samples.length) / (SAMPLES - 1)) * (WIDTH - 2 * EDGE);
  const y = (value) => HEIGHT - EDGE - (value / most) * (HEIGHT - 2 * EDGE);
  let run = [];
  const stroke = () => {
    if (!run.length) return;
    context.beginPath();
    run.forEach(([px, py]) => context.lineTo(px, py));
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.strokeStyle = LINE;
    context.stroke();
    context.lineTo(run.at(-1)[0], HEIGHT);
    context.lineTo(run[0][0], HEIGHT);
    context.fillStyle = AREA;
    context.fill();
    run = [];
  };
  samples.forEach((value, i) => (value === null ? stroke() : run.push([x(i), y(value)])));
  stroke();
}
