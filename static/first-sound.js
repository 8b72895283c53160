/**
 * When the first sound of an answer is heard here: the last step of a turn, which only this side can see.
 *
 * Place in the flow: beside `talking-head.js`; `app.js` joins the two. It listens to the stream that the video element plays and plays nothing itself.
 *
 * Invariants: nothing is measured while the sound is off or the page has had no click, for nobody hears it then; each turn is told once at most.
 */

/** The news that an answer begins and its sound travel on different ways, and a busy page reads news late: either may be first. */
const EARLY_MS = 800;
/** A sound that begins later than this is not the beginning. */
const LATE_MS = 5000;
/** The two clocks agree to some milliseconds only, and the server believes no news from the future. */
const TELL_AFTER_MS = 200;

export class FirstSound {
  #tell;
  #context = null;
  #ready = null;
  #source = null;
  #stream = null;
  #audible = false;
  #waiting = null;
  #onsetMs = -Infinity;

  /** @param {(turnId: number, pageMs: number) => void} tell is told once a turn; the time is `performance.now()`, the loudspeaker's delay included */
  constructor(tell) {
    this.#tell = tell;
  }

  /** The stream that is played now. */
  set stream(stream) {
    this.#stream = stream;
    this.#connect();
  }

  /** Whether its sound is on. */
  set audible(audible) {
    this.#audible = audible;
    if (!audible) this.#context?.suspend();
    // A context made before the first click would be refused, and complain.
    else if (navigator.userActivation?.hasBeenActive ?? true) this.#connect();
  }

  /** The server says that the answer of this turn leaves it now. */
  expect(turnId) {
    const nowMs = performance.now();
    this.#waiting = { turnId, sinceMs: nowMs };
    if (nowMs - this.#onsetMs < EARLY_MS) this.#heard(this.#onsetMs);
  }

  /** What is heard now is over: nothing of it is the beginning of an answer to come. */
  forget() {
    this.#waiting = null;
    this.#onsetMs = -Infinity;
  }

  async #connect() {
    if (!this.#audible || !this.#stream || !globalThis.AudioContext) return;
    this.#context ??= new AudioContext();
    // Pages without a secure origin have no worklets: no figure then.
    if (!this.#context.audioWorklet) return;
    this.#ready ??= this.#context.audioWorklet.addModule(new URL("onset-worklet.js", import.meta.url)).then(() => this.#listen());
    try {
      await Promise.all([this.#context.resume(), this.#ready]);
      const onsets = await this.#ready;
      if (this.#source?.mediaStream === this.#stream) return;
      this.#source?.disconnect();
      this.#source = this.#context.createMediaStreamSource(this.#stream);
      this.#source.connect(onsets);
    } catch (error) {
      console.info("The first sound of answers is not measured:", error.message);
    }
  }

  #listen() {
    const context = this.#context;
    const onsets = new AudioWorkletNode(context, "onsets");
    onsets.port.onmessage = ({ data: atS }) => {
      const delayS = context.outputLatency || context.baseLatency || 0;
      this.#onsetMs = performance.now() + (atS - context.currentTime + delayS) * 1000;
      this.#heard(this.#onsetMs);
    };
    // It gives silence; being connected is what makes browsers run it.
    onsets.connect(context.destination);
    return onsets;
  }

  #heard(atMs) {
    const waiting = this.#waiting;
    if (!waiting || !this.#audible) return;
    this.#waiting = null;
    if (atMs - waiting.sinceMs < LATE_MS) setTimeout(() => this.#tell(waiting.turnId, atMs), atMs - performance.now() + TELL_AFTER_MS);
  }
}
