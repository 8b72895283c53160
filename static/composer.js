/**
 * The box that is written in: counts, grows, sends, and gives back what could not be sent.
 *
 * Place in the flow: hands each text to `app.js`.
 */

/** The counter appears when this share of the limit is used. */
const COUNT_FROM = 0.8;

export class Composer {
  #ui;
  #limit;

  /**
   * @param {Record<"form"|"text"|"count"|"send", HTMLElement>} ui
   * @param {() => number} limit of a text, in characters
   * @param {(text: string) => Promise<boolean>} send false when it could not be spoken
   */
  constructor(ui, limit, send) {
    this.#ui = ui;
    this.#limit = limit;
    const { form, text, send: button } = ui;
    text.addEventListener("input", () => this.measure());
    text.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      form.requestSubmit(button.disabled ? null : button);
    });
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      if (button.disabled) return;
      const sentence = text.value.trim();
      text.value = "";
      this.measure();
      // Nothing a person wrote is lost: what could not be spoken returns to the box.
      if (!(await send(sentence)) && !text.value) {
        text.value = sentence;
        this.measure();
      }
    });
  }

  measure() {
    const { text, count, send } = this.#ui;
    const limit = this.#limit();
    const used = [...text.value.trim()].length;
    count.textContent = used > limit * COUNT_FROM ? `${limit - used}` : "";
    count.toggleAttribute("data-over", used > limit);
    send.disabled = !used || used > limit;
    if (!CSS.supports("field-sizing", "content")) {
      text.style.height = "auto";
      text.style.height = `${text.scrollHeight}px`;
    }
  }
}
