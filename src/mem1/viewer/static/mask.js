"use strict";
// The packed layout as a picture: query q (down) sees key k (across) iff k <= q < until of k.
(() => {
  const { h, s, load } = mem1;
  const ROW = 28, STRIP = 10;

  const name = ({ kind, turn, trajectory }, group) =>
    [mem1.KINDS[kind], turn > 0 && `turn ${turn}`,
      group && `trajectory ${trajectory}`].filter(Boolean).join(", ");

  const say = (part, group) =>
    `${name(part, group)}: ${mem1.plural(part.stop - part.start, "token")} at ${
    mem1.number(part.start)}, seen until ${mem1.number(part.until)}`;

  /** A part's keys are seen by the queries from each key on until `until`. */
  const shape = ({ start, stop, until }, scale) =>
    `M${[[start, start], [stop, stop], [stop, until], [start, until]]
      .map(([x, y]) => `${(x * scale).toFixed(2)} ${(y * scale).toFixed(2)}`).join("L")}z`;

  const picture = (row, group, tell) => mem1.fit((width) => {
    const side = Math.min(width - STRIP - 2, 720), scale = side / row.num_tokens;
    const parts = row.parts.map((part) => {
      const one = s("g", { class: `kind-${part.kind}` },
        s("path", { d: shape(part, scale), class: "sees" }),
        s("rect",
          { x: side + 2, y: part.start * scale, width: STRIP,
            height: (part.stop - part.start) * scale }));
      one.addEventListener("pointerenter", () => { one.classList.add("pointed"); tell(part); });
      one.addEventListener("pointerleave", () => one.classList.remove("pointed"));
      return one;
    });
    return s("svg", { width: side + STRIP + 2, height: side, class: "mask", role: "img",
      "aria-label": `Who sees whom among ${mem1.plural(row.num_tokens, "token")}` }, parts);
  });

  const ranges = (parts, group) => {
    const body = h("tbody");
    const heads = ["Part", "Tokens", "From", "To", "Seen until"];
    const table = h("table", { class: "ranges", "aria-rowcount": parts.length + 1 },
      h("caption", { class: "hidden" }, "Token ranges of the row"),
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))), body);
    const scroller = h("div",
      { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Token ranges" }, table);
    const rows = mem1.virtual({ body, rowHeight: ROW, scroller,
      make: (part) =>
        h("tr", null, h("th", { scope: "row" }, mem1.swatch(part.kind), name(part, group)),
          [part.stop - part.start, part.start, part.stop, part.until]
            .map((value) => h("td", null, mem1.number(value)))) });
    rows.show(parts);
    return { element: scroller, stop: rows.stop };
  };

  /** One row: {element, stop}. */
  const rowView = (row, place, count, group) => {
    const told = h("p", { class: "told" }, "Point at a range to learn what it is.");
    const list = ranges(row.parts, group);
    const tell = (part) => { told.textContent = say(part, group); };
    const element = h("section", null,
      count > 1 && h("h3", null, `Row ${place + 1} of ${count}`),
      h("p", { class: "quiet" }, mem1.plural(row.num_tokens, "token"),
        ` laid out once; one sequence per turn would take ${mem1.number(row.num_unpacked)}. `,
        "A column is a token, its coloured length the tokens that see it."),
      h("div", { class: "mask-columns" },
        h("div", null, picture(row, group, tell), told), list.element));
    return { element, stop: list.stop };
  };

  const other = (base, group, size) => h("p", null,
    h("a", { href: `#/${base}/mask${group ? "" : "?group=1"}` },
      group ? "Only this trajectory" : `All ${size} rollouts of the task together`));

  /** The layout of a trajectory, or of all rollouts of its task: {element, stop}. */
  mem1.maskView = async (base, group) => {
    const { rows, group: rollouts } = await load(`${base}/layout${group ? "?group=1" : ""}`);
    const kinds = new Set(rows.flatMap(({ parts }) => parts.map(({ kind }) => kind)));
    const views = rows.map((row, place) => rowView(row, place, rows.length, group));
    return {
      element: h("section", { class: "mask-page" }, h("h2", null, "Who sees whom"),
        rollouts.length > 1 && other(base, group, rollouts.length),
        mem1.legend(Object.keys(mem1.KINDS).filter((kind) => kinds.has(kind))),
        views.map(({ element }) => element)),
      stop: () => views.forEach(({ stop }) => stop()),
    };
  };
})();
