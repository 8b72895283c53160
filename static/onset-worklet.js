/**
 * Watches a sound for the moments at which it begins.
 *
 * Place in the flow: runs on the browser's audio thread, loaded by `first-sound.js`; posts the context's time, in seconds, of each first sample after silence.
 * On this thread a busy page costs no precision.
 */

/** Louder than this is sound, -48 dBFS. */
const LEVEL = 0.004;
/** Shorter gaps belong to the sound. */
const SILENCE_S = 0.06;

class Onsets extends AudioWorkletProcessor {
  #silent = sampleRate;

  process([channels]) {
    const samples = channels[0];
    if (!samples) {
      this.#silent += 128;
      return true;
    }
    for (let i = 0; i < samples.length; i += 1) {
      if (Math.abs(samples[i]) < LEVEL) {
        this.#silent += 1;
      } else {
        if (this.#silent >= SILENCE_S * sampleRate) this.port.postMessage((currentFrame + i) / sampleRate);
        this.#silent = 0;
      }
    }
    return true;
  }
}

registerProcessor("onsets", Onsets);
