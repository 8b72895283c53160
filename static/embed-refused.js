/**
 * Where an embed may not be shown: says why and what to change, to eyes and to the page around.
 *
 * Place in the flow: the only script of a page that anybody may frame, because nothing can be done with it.
 */

import { Bridge } from "./embed-bridge.js";

const given = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
const problem = { code: given("problem"), message: given("message") };

document.getElementById("message").textContent = problem.message;
const tell = () => bridge.tell("error", problem);
const bridge = new Bridge({}, tell);
tell();
