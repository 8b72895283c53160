/**
 * What the page around the frame has left out of its `allow` attribute.
 *
 * Place in the flow: asked by `embed-page.js` when it begins and when something is refused. Browsers that do not tell their
 * policy count as allowing everything; what they then refuse is explained when it is wanted.
 */

import { t } from "./language.js";
import { Problem } from "./protocol.js";

/**
 * @param {string[]} wanted features
 * @returns {string[]} those that the frame may not use
 */
export function missing(wanted) {
  return wanted.filter((feature) => document.featurePolicy?.allowsFeature?.(feature) === false);
}

/**
 * Says which attribute is missing, and what it has to be.
 *
 * @param {string[]} absent what `missing` found
 * @param {string[]} wanted all that the frame uses
 * @returns {Problem} `microphone_policy` or the like; `missing` lists the features
 */
export function policyProblem(absent, wanted) {
  const text = t("embed.policy", { features: absent.join(", "), allow: wanted.join("; ") });
  return Object.assign(new Problem(`${absent[0]}_policy`, text), { missing: absent });
}
