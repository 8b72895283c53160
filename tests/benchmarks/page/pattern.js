/**
 * The pattern that makes skew visible, written into a picture and a sound track from a worker, where no page can delay it.
 *
 * Place in the flow: calibration.js -> this worker -> the two tracks. `strip.py` has the same pattern for the server.
 *
 * Invariants: the flash of a beat and the first sound of its beep are written in the same turn of the event loop; the
 * beats are unevenly spaced, so that sound which is late by whole seconds is not taken for sound that is in time, and
 * no multiple of a screen's refresh, so that their median has no preferred phase.
 */

const FPS = 25;
const SIDE = 512;
const RATE = 48_000;
/** One packet's worth: as from a server, it leaves when its first sample is due, not when its last one was heard. */
const CHUNK_MS = 20;
const CHUNK = (RATE * CHUNK_MS) / 1000;
const CHUNKS_PER_FRAME = 1000 / FPS / CHUNK_MS;
const STRIP_CELLS = 32;
const BEEP_HZ = 1000;
const CYCLE = 127;
const BEATS = new Set([0, 26, 51, 82, 101]);

const isBeat = (number) => BEATS.has(number % CYCLE);

self.onmessage = ({ data: { picture, sound } }) => generate(picture.getWriter(), sound.getWriter());

function generate(picture, sound) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const started = performance.now();
  let chunk = 0;
  const due = () => started + chunk * CHUNK_MS;
  const tick = () => {
    while (performance.now() >= due()) {
      const number = Math.floor(chunk / CHUNKS_PER_FRAME);
      const timestamp = Math.round(due() * 1000);
      if (chunk % CHUNKS_PER_FRAME === 0) {
        draw(context, number);
        picture.write(new VideoFrame(canvas, { timestamp }));
      }
      sound.write(beep(timestamp, isBeat(number)));
      chunk += 1;
    }
    setTimeout(tick, Math.max(0, due() - performance.now()));
  };
  tick();
}

function draw(context, number) {
  context.fillStyle = "#555";
  context.fillRect(0, 0, SIDE, SIDE);
  // Something that moves, so that the encoder has work.
  context.fillStyle = "#a64";
  context.fillRect(((number * 7) % SIDE) - 40, SIDE * 0.8, 80, 60);
  const cell = SIDE / STRIP_CELLS;
  context.fillStyle = isBeat(number) ? "#fff" : "#000";
  context.fillRect(0, cell * 2, SIDE / 8, SIDE / 8);
  for (let i = 0; i < STRIP_CELLS; i += 1) {
    const bit = i < 2 ? 1 - i : (number >> (i - 2)) & 1;
    context.fillStyle = bit ? "#fff" : "#000";
    context.fillRect(i * cell, 0, cell, cell * 2);
  }
}

function beep(timestamp, audible) {
  const data = new Float32Array(CHUNK);
  if (audible) {
    for (let i = 0; i < CHUNK; i += 1) data[i] = 0.5 * Math.sin((2 * Math.PI * BEEP_HZ * i) / RATE);
  }
  return new AudioData({ format: "f32-planar", sampleRate: RATE, numberOfFrames: CHUNK, numberOfChannels: 1, timestamp, data });
}
