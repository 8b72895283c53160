/**
 * A person at the measuring page: says recorded sentences into its microphone when told to, and notes every event.
 *
 * Place in the flow: conversation_page.py -> `window.person` -> a microphone track of Web Audio -> the product's
 * `<talking-head>` -> events back to conversation_page.py. It is loaded into bench.html after bench.js.
 *
 * Invariants: the microphone is never digital silence, as no microphone is; every time is on `performance.now()`.
 */

import { Ear } from "./recorders.js";

const RATE = 48_000;
/** White noise of a quiet room, full scale 1: about -70 dBFS. */
const ROOM = 0.0005;
const EVENTS = [
  "speaking", "caption", "user_speaking", "transcript", "turn", "latency", "interrupted", "error", "accepted",
];

class Person {
  #context = new AudioContext({ sampleRate: RATE });
  #microphone = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
  #sounds = new Map();
  #events = [];

  /** Sit down in front of a connected page: open the microphone and have it answered. */
  async arrive(names) {
    for (const name of names) {
      const bytes = await (await fetch(`${name}.wav`)).arrayBuffer();
      this.#sounds.set(name, await this.#context.decodeAudioData(bytes));
    }
    const room = this.#context.createBuffer(1, RATE * 3, RATE);
    room.getChannelData(0).forEach((_, i, samples) => (samples[i] = (Math.random() * 2 - 1) * ROOM));
    this.#play(room, true);
    await this.#context.resume();
    const { bench } = window;
    for (const type of EVENTS) {
      bench.head.addEventListener(type, ({ detail }) => this.#events.push({ ...detail, type, at: performance.now() }));
    }
    const [track] = this.#microphone.stream.getAudioTracks();
    bench.microphone = new Ear(track);
    await bench.head.setMicrophone(track);
    bench.head.setMode("converse");
    await this.#listen(bench.head);
  }

  /** Tell the server when answers are first heard, with the module that the product's own page does it with. */
  async #listen(head) {
    const { FirstSound } = await import("/first-sound.js");
    const first = new FirstSound((turnId, pageMs) => head.heard(turnId, pageMs));
    first.stream = head.video.srcObject;
    first.audible = true;
    head.addEventListener("turn", ({ detail }) => {
      if (detail.state === "speaking") first.expect(detail.turn_id);
    });
  }

  /** Say something; returns about when its first sample goes into the microphone. */
  say(name) {
    this.#play(this.#sounds.get(name), false);
    return performance.now();
  }

  /** Type something. */
  ask(text) {
    return window.bench.head.ask(text);
  }

  /** Loudness of what the avatar says now. */
  level() {
    return window.bench.voice.level;
  }

  /** Events from number `first` on. */
  events(first) {
    return this.#events.slice(first);
  }

  #play(buffer, loop) {
    const source = new AudioBufferSourceNode(this.#context, { buffer, loop });
    source.connect(this.#microphone);
    source.start();
  }
}

window.person = new Person();
