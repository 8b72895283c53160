/**
 * The server's clock, as this page sees it.
 *
 * Place in the flow: `talking-head.js` feeds it with pings and their answers, and tells the server by it when something was heard here.
 *
 * An answer left the server somewhere between question and receipt; half-way is the best guess, and the quicker the exchange was, the less it can be wrong.
 * Of the last exchanges the quickest therefore counts; older ones are forgotten, because clocks drift apart.
 */

const EXCHANGES_KEPT = 30;

export class ServerClock {
  #exchanges = [];

  /**
   * A ping was answered. Page times are `performance.now()`.
   * @param {number} sentMs
   * @param {number} receivedMs
   * @param {number} serverMs the server's monotonic clock when it answered
   */
  pong(sentMs, receivedMs, serverMs) {
    if (![sentMs, receivedMs, serverMs].every(Number.isFinite)) return;
    this.#exchanges.push({ tookMs: receivedMs - sentMs, aheadMs: serverMs - (sentMs + receivedMs) / 2 });
    if (this.#exchanges.length > EXCHANGES_KEPT) this.#exchanges.shift();
  }

  /** Forget everything: the next answer comes from another server, or from one that has started anew. */
  reset() {
    this.#exchanges = [];
  }

  /**
   * A time of this page by the server's clock.
   * @param {number} pageMs
   * @returns {number|null} null before the first answer
   */
  at(pageMs) {
    if (!this.#exchanges.length) return null;
    const quickest = this.#exchanges.reduce((a, b) => (b.tookMs < a.tookMs ? b : a));
    return pageMs + quickest.aheadMs;
  }
}
