// The tasks at hand: one on screen, some fetched ahead, so that the next one needs no waiting.

import { call } from "./api.js";

export const AHEAD = 3; // one on screen and two ready

export class Queue {
  constructor(project) {
    this.project = project;
    this.current = null;
    this.ready = [];
    this.status = "ok";
    this.retryAfter = null;
    this.open = null;
    this.asking = null;
  }

  get tasks() {
    return [this.current, ...this.ready].filter(Boolean);
  }

  get have() {
    return this.tasks.map((t) => t.assignment);
  }

  /** What to ask for along with a submit, so that one trip does both. */
  wanted() {
    const have = this.have;
    return have.length < AHEAD ? { count: AHEAD - have.length, have } : null;
  }

  /** Takes in an answer of `next`; tasks already here are not taken twice. */
  take(answer, except = []) {
    if (!answer) return;
    const known = new Set([...this.have, ...except]);
    this.ready.push(...answer.tasks.filter((t) => !known.has(t.assignment)));
    this.status = answer.status;
    this.retryAfter = answer.retry_after;
    this.open = answer.progress?.open ?? this.open;
  }

  /** Asks the server for tasks unless enough are here; one request at a time. */
  fill(except = [], take = (answer) => this.take(answer, except)) {
    const wanted = this.wanted();
    if (!wanted || this.asking) return this.asking ?? Promise.resolve();
    this.asking = call("POST", `/api/projects/${this.project}/next`, wanted)
      .then((answer) => take(answer, except))
      .finally(() => {
        this.asking = null;
      });
    return this.asking;
  }

  advance() {
    this.current = this.ready.shift() ?? null;
    return this.current;
  }

  /** Puts a task back on screen; the one that was there comes next. */
  back(task) {
    this.ready = this.ready.filter((t) => t.assignment !== task.assignment);
    if (this.current && this.current.assignment !== task.assignment) this.ready.unshift(this.current);
    this.current = task;
  }
}
