"use strict";
// The page's one global. Each file adds what it's called after; all text goes in as text nodes.
const mem1 = {};

(() => {
  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity)
      .filter((c) => c !== null && c !== undefined && c !== false));
    return element;
  };

  /** An HTML element: h("a", {href: "#/", onclick: f}, "text", [elements], null). */
  mem1.h = (tag, attributes, ...children) =>
    fill(document.createElement(tag), attributes, children);

  /** The same in SVG. */
  mem1.s = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

  /** A number for people: 12,345 or 0.42 or 3.1e-7; a dash for what is undefined. */
  mem1.number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 100 || Number.isInteger(value)) return grouped.format(value);
    if (size >= 10) return value.toFixed(1);
    if (size >= 0.01) return value.toFixed(2);
    return value.toExponential(1);
  };

  /** A mean for people: two decimals, or a whole number from 100 on. */
  mem1.mean = (value) => Math.abs(value) >= 100 ? mem1.number(value)
    : value.toFixed(2).replace("-0.00", "0.00");

  /** A number that also tells its exact value. */
  mem1.data = (value, text = mem1.number(value)) =>
    value === null || value === undefined ? "–" : mem1.h("data", { value }, text);

  mem1.plural = (count, word, words = `${word}s`) =>
    `${mem1.number(count)} ${count === 1 ? word : words}`;

  /** Draws again whenever the width changes: draw(width in pixels) gives an element. */
  mem1.fit = (draw) => {
    const box = mem1.h("div", { class: "fit" });
    let drawn = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== drawn) box.replaceChildren(draw((drawn = width)));
    }).observe(box);
    return box;
  };

  /** A table from heads and rows of cells: text, an element or {…attributes, of: cell}. */
  mem1.table = ({ caption, heads, rows, className }) => {
    const cell = (tag, extra) => (content) =>
      content && content.constructor === Object
        ? mem1.h(tag, { ...extra, ...content, of: null }, content.of)
        : mem1.h(tag, extra, content);
    return mem1.h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      mem1.h("table", { class: className },
        mem1.h("caption", null, caption),
        mem1.h("thead", null, mem1.h("tr", null, heads.map(cell("th", { scope: "col" })))),
        mem1.h("tbody", null, rows.map(([first, ...others]) => mem1.h("tr", null,
          cell("th", { scope: "row" })(first), others.map(cell("td", {})))))));
  };

  /** What a part of a context is called, in the order of bars and legends. */
  mem1.KINDS = {
    prompt: "task prompt",
    internal_state: "kept state",
    action: "kept action",
    reply: "kept reply",
    observation: "kept observation",
    hint: "hint",
    sampled: "sampled",
  };

  mem1.swatch = (kind) => mem1.h("span", { class: `swatch kind-${kind}`, "aria-hidden": "true" });

  mem1.legend = (kinds) => mem1.h("ul", { class: "legend" },
    kinds.map((kind) => mem1.h("li", null, mem1.swatch(kind), mem1.KINDS[kind] ?? kind)));

  mem1.words = (name) => name.replaceAll("_", " ");
})();
