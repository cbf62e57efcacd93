// Seconds of attention to one item: the clock stands still while the page is hidden or nothing was touched for a minute.

const IDLE_MS = 60_000;
const SIGNS = ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchstart", "input"];

export class Clock {
  /** `now` and `page` can be replaced in tests. */
  constructor(now = () => performance.now(), page = document) {
    Object.assign(this, { now, page, gathered: 0, since: null, seen: now() });
    for (const sign of SIGNS) page.addEventListener(sign, () => this.touch(), { passive: true, capture: true });
    page.addEventListener("visibilitychange", () => (page.hidden ? this.pause(now()) : this.touch()));
  }

  /** Starts at zero, or at the seconds a draft already took. */
  start(seconds = 0) {
    this.gathered = seconds * 1000;
    this.since = this.seen = this.now();
  }

  touch() {
    const now = this.now();
    this.settle(now);
    this.seen = now;
    if (this.since === null && !this.page.hidden) this.since = now;
  }

  /** After a minute without a sign of life, what counted ends at that minute. */
  settle(now) {
    if (this.since !== null && now - this.seen > IDLE_MS) this.pause(this.seen + IDLE_MS);
  }

  pause(at) {
    if (this.since !== null) this.gathered += Math.max(0, Math.min(at, this.now()) - this.since);
    this.since = null;
  }

  get seconds() {
    const now = this.now();
    this.settle(now);
    return (this.gathered + (this.since === null ? 0 : now - this.since)) / 1000;
  }

  get running() {
    this.settle(this.now());
    return this.since !== null;
  }
}
