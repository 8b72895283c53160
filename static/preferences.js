/**
 * What a person has chosen in the settings, kept in this browser for visits to come.
 *
 * Place in the flow: below everything; knows no settings, only names and texts.
 *
 * Invariant: a browser that keeps nothing, such as a private window, is no error: everything is then as at the first visit.
 */

const PREFIX = "visavis.";

/** What was chosen, or null. */
export function recall(name) {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/** Keep a choice; null forgets it. */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // Kept for as long as the page is open, then.
  }
}
