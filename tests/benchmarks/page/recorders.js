/**
 * Ears and eyes of the measuring page: what arrives is written down with the time it arrived, and judged elsewhere.
 *
 * Place in the flow: media tracks and video elements -> Ear, Eye -> bench.js -> Python (analysis.py).
 *
 * Invariants: every time is on the scale of `performance.now()`; nothing is judged here, so that what counts as an
 * onset or a movement is decided once, in code with tests.
 */

/** Loudness is kept once for this many milliseconds. */
export const BLOCK_MS = 2;

/** Writes down the loudness of a sound track, straight from the track: no Web Audio and none of its buffers between. */
export class Ear {
  #stopped = false;
  #times = [];
  #levels = [];

  /** @param {MediaStreamTrack} track a remote one must also be playing in a video element, or nothing pulls it */
  constructor(track) {
    const processor = new MediaStreamTrackProcessor({ track: track.clone(), maxBufferSize: 200 });
    this.done = this.#listen(processor.readable.getReader());
  }

  /** Forget what was heard so far. */
  clear() {
    this.#times.length = this.#levels.length = 0;
  }

  stop() {
    this.#stopped = true;
  }

  /** Loudest value of the last 30 ms, 0 to 1. */
  get level() {
    return Math.max(0, ...this.#levels.slice(-Math.ceil(30 / BLOCK_MS)));
  }

  /** @returns {{times: string, levels: string}} base64 of float64 ms (start of each block) and float32 RMS */
  take() {
    return { times: base64(new Float64Array(this.#times)), levels: base64(new Float32Array(this.#levels)) };
  }

  async #listen(reader) {
    let samples = new Float32Array(0);
    while (!this.#stopped) {
      const { value: data, done } = await reader.read();
      if (done) break;
      const { numberOfFrames: count, sampleRate } = data;
      // A track's sound is stamped when the browser hands it on, in microseconds since the page was opened. The
      // block's last sample is the newest, so the first one is as old as the block is long.
      const start = data.timestamp / 1000 - (count / sampleRate) * 1000;
      if (samples.length < count) samples = new Float32Array(count);
      data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      data.close();
      const size = Math.round((sampleRate * BLOCK_MS) / 1000);
      for (let at = 0; at < count; at += size) {
        const end = Math.min(count, at + size);
        let energy = 0;
        for (let i = at; i < end; i += 1) energy += samples[i] * samples[i];
        this.#times.push(start + (at / sampleRate) * 1000);
        this.#levels.push(Math.sqrt(energy / (end - at)));
      }
    }
    reader.cancel();
  }
}

const EYE_FIELDS = ["expectedDisplayTime", "presentationTime", "receiveTime", "rtpTimestamp", "presentedFrames", "processingDuration"];

/** Writes down every frame a video element presents: when, and what one region of it looked like. */
export class Eye {
  #stopped = false;
  #rows = [];
  #pixels = [];

  /**
   * @param {HTMLVideoElement} video
   * @param {{x: number, y: number, width: number, height: number, columns: number, rows: number}} region
   *   the part to look at as fractions of the picture, and the grid of grey values it is reduced to
   */
  constructor(video, region) {
    this.video = video;
    this.region = region;
    this.canvas = document.createElement("canvas");
    this.canvas.width = region.columns;
    this.canvas.height = region.rows;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.#next();
  }

  clear() {
    this.#rows.length = this.#pixels.length = 0;
  }

  stop() {
    this.#stopped = true;
  }

  /** When the newest frame was shown, or 0. */
  get lastMs() {
    return this.#rows.at(-1)?.[0] ?? 0;
  }

  /** @returns {{fields: string[], frames: string, pixels: string}} base64 of float64 rows and of uint8 grey grids */
  take() {
    const { columns, rows } = this.region;
    const pixels = new Uint8Array(this.#pixels.length * columns * rows);
    this.#pixels.forEach((grid, i) => pixels.set(grid, i * columns * rows));
    return { fields: EYE_FIELDS, frames: base64(new Float64Array(this.#rows.flat())), pixels: base64(pixels) };
  }

  #next() {
    this.video.requestVideoFrameCallback((now, frame) => {
      if (this.#stopped) return;
      this.#next();
      this.#rows.push(EYE_FIELDS.map((field) => frame[field] ?? NaN));
      this.#pixels.push(this.#look());
    });
  }

  #look() {
    const { x, y, width, height, columns, rows } = this.region;
    const { videoWidth, videoHeight } = this.video;
    this.context.drawImage(
      this.video, x * videoWidth, y * videoHeight, width * videoWidth, height * videoHeight, 0, 0, columns, rows,
    );
    const rgba = this.context.getImageData(0, 0, columns, rows).data;
    const grid = new Uint8Array(columns * rows);
    for (let i = 0; i < grid.length; i += 1) {
      grid[i] = (rgba[4 * i] * 77 + rgba[4 * i + 1] * 150 + rgba[4 * i + 2] * 29) >> 8;
    }
    return grid;
  }
}

function base64(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
