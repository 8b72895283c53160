/**
 * What lets an embed in where the server asks for something.
 *
 * Place in the flow: takes the place of `Api.admission`, which `Peer` asks before every offer. The server has put a token
 * into the page that it gave to this one frame; it is exchanged for one that opens a session, and for the next of its kind.
 */

import { problem } from "./protocol.js";

/** A token that fails so soon after it came with the page does not get better by asking again. */
const FRESH_MS = 60_000;

/**
 * @param {import("./protocol.js").Api} api
 * @param {{pageToken: string, token: string}} given pageToken: of the page; token: one that opens a session at once
 */
export function admit(api, { pageToken, token }) {
  let before = Promise.resolve();
  const exchange = async () => {
    try {
      const answer = await api.tokens({ page_token: pageToken });
      pageToken = answer.page_token;
      return answer;
    } catch (error) {
      // It stood for longer than its token lasts. Only the page around can have it loaded again as that page's frame.
      throw error.status === 401 && performance.now() > FRESH_MS ? problem("page_stale", { status: error.status }) : error;
    }
  };
  // One after the other, for each exchange needs what the last one gave.
  if (pageToken) api.admission = () => (before = before.catch(() => {}).then(exchange));
  else if (token) api.admission = async () => ({ token });
}
