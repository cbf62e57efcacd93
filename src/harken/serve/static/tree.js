// A conversation that branches: each message knows its parent, and which of its children is being read.

const KEY = "harken:chat";

export class Tree {
  constructor() {
    this.nodes = [{ id: 0, role: "root", content: "", parent: null, children: [], at: 0 }];
  }

  /** Adds a message under `parent`; it is the one being read there. */
  add(parent, role, content, more = {}) {
    const node = { id: this.nodes.length, role, content, parent, children: [], at: 0, ...more };
    this.nodes.push(node);
    const above = this.nodes[parent];
    above.children.push(node.id);
    above.at = above.children.length - 1;
    return node;
  }

  /** The messages being read, from the first on. */
  path() {
    const found = [];
    let node = this.nodes[0];
    while (node.children.length) {
      node = this.nodes[node.children[node.at]];
      found.push(node);
    }
    return found;
  }

  /** What a model is sent to answer `node`. */
  messages(node, system) {
    const found = [];
    for (let at = node; at.role !== "root"; at = this.nodes[at.parent]) found.unshift({ role: at.role, content: at.content });
    return system ? [{ role: "system", content: system }, ...found] : found;
  }

  last() {
    return this.path().at(-1) ?? this.nodes[0];
  }

  /** [place, number] of a message among those in its place. */
  place(node) {
    const { children } = this.nodes[node.parent];
    return [children.indexOf(node.id), children.length];
  }

  turn(node, by) {
    const above = this.nodes[node.parent];
    above.at = Math.min(above.children.length - 1, Math.max(0, above.at + by));
  }

  /** Kept in this tab over a reload. */
  save() {
    sessionStorage.setItem(KEY, JSON.stringify(this.nodes));
  }

  static load() {
    const tree = new Tree();
    try {
      const nodes = JSON.parse(sessionStorage.getItem(KEY));
      if (Array.isArray(nodes) && nodes[0]?.role === "root") tree.nodes = nodes.map((n) => ({ ...n, writing: false }));
    } catch {
      // what cannot be read is a new chat
    }
    return tree;
  }
}
