// Work that is done a few at a time, in order, and that can be stopped.

export class Queue {
  #waiting = [];
  #running = new Map(); // task -> AbortController
  #changed;

  constructor({ atOnce, changed }) {
    this.atOnce = atOnce;
    this.#changed = changed;
  }

  get length() {
    return this.#waiting.length + this.#running.size;
  }

  /** work(signal) -> promise; it must not reject. owner: what `drop` takes it out by. */
  add(owner, work) {
    this.#waiting.push({ owner, work });
    this.#next();
  }

  /** Stop all work for this owner. */
  drop(owner) {
    this.#stop((task) => task.owner === owner);
  }

  /** Stop everything; the owners of what had not begun. */
  clear() {
    return this.#stop(() => true);
  }

  #stop(matches) {
    const left = this.#waiting.filter(matches).map((task) => task.owner);
    this.#waiting = this.#waiting.filter((task) => !matches(task));
    for (const [task, controller] of this.#running) if (matches(task)) controller.abort();
    this.#changed();
    return left;
  }

  #next() {
    while (this.#running.size < this.atOnce && this.#waiting.length) {
      const task = this.#waiting.shift();
      const controller = new AbortController();
      this.#running.set(task, controller);
      task.work(controller.signal).finally(() => {
        this.#running.delete(task);
        this.#next();
        this.#changed();
      });
    }
  }
}
