/**
 * What the frame and the page around it tell each other.
 *
 * Place in the flow: between `embed-page.js` and `postMessage`; embed/v*.js is the other end, or any page's own script.
 *
 * Every message is {source: "talking-head", v: 1, type, id?, data?}. What goes in is a command; whoever gave it an id
 * gets a `result` or an `error` with the same id. What goes out without an id is an event. `hello` asks for the first one again.
 *
 * Invariants:
 *   - only the window right around the frame is listened to, and nothing is told to any other;
 *   - what is told goes to that window's exact origin. Which pages may frame this one at all, the browser decides by the
 *     server's list; so whoever speaks from that window is on it.
 */

const SOURCE = "talking-head";
const VERSION = 1;

export class Bridge {
  #origin = surroundings();
  #commands;
  #greet;

  /**
   * @param {Record<string, (data: object) => unknown>} commands by type; what they return, or the promise of it, is the result
   * @param {() => void} greet somebody says hello
   */
  constructor(commands, greet) {
    this.#commands = new Map(Object.entries(commands));
    this.#greet = greet;
    addEventListener("message", (event) => this.#hear(event));
  }

  /** Tell the page around. Before it is known who that is, nobody is told. */
  tell(type, data = {}, id) {
    if (parent === window || !this.#origin) return;
    parent.postMessage({ source: SOURCE, v: VERSION, type, ...(id === undefined ? {} : { id }), data }, this.#origin);
  }

  #hear({ source, origin, data }) {
    if (source !== parent || parent === window || data?.source !== SOURCE || data.v !== VERSION) return;
    // A page that was opened from a file has an origin that nobody can be sure of.
    if (origin === "null") return;
    this.#origin = origin;
    if (data.type === "hello") this.#greet();
    else this.#obey(data);
  }

  async #obey({ type, id, data }) {
    try {
      const command = this.#commands.get(type);
      if (!command) throw Object.assign(new Error(`There is no command "${type}".`), { code: "command_unknown" });
      this.tell("result", (await command(Object(data))) ?? {}, id);
    } catch (error) {
      this.tell("error", failure(error), id);
    }
  }
}

/** A failure as it travels. */
export function failure(error) {
  const { code = "unexpected", message, missing, queue } = error;
  return { code, message, ...(missing ? { missing } : {}), ...(queue ? { position: queue.position } : {}) };
}

/** The origin of the page around, where the browser says it; otherwise the first `hello` does. */
function surroundings() {
  const known = location.ancestorOrigins?.[0];
  if (known && known !== "null") return known;
  return URL.canParse(document.referrer) ? new URL(document.referrer).origin : "";
}
