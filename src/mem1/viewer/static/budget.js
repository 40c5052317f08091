"use strict";
// The timeline: tokens of each turn's context by kind, against the bound and against full context.
(() => {
  const { h, s } = mem1;
  const HEIGHT = 210, LEFT = 52, RIGHT = 12, TOP = 16, BOTTOM = 30;

  /** Tokens of a turn by kind, what it sampled included. */
  const sizes = (turn, segments) => {
    const found = Object.fromEntries(Object.keys(mem1.KINDS).map((kind) => [kind, 0]));
    for (const index of turn.context) found[segments[index].kind] += segments[index].tokens;
    found.sampled = turn.reply_tokens;
    return found;
  };

  const say = (turn, found) =>
    `Turn ${turn.turn}: ${mem1.plural(turn.context_tokens + turn.reply_tokens, "token")} (${
    Object.entries(found).filter(([, size]) => size)
      .map(([kind, size]) => `${mem1.KINDS[kind]} ${mem1.number(size)}`)
      .join(", ")}); full context would hold ${mem1.number(turn.full_tokens + turn.reply_tokens)}`;

  /**
   * @returns {{element, mark(turn number)}}; open(turn number) is called on a click
   */
  mem1.budget = ({ turns, segments, bound }, open) => {
    const found = turns.map((turn) => sizes(turn, segments));
    const kinds = Object.keys(mem1.KINDS).filter((kind) => found.some((one) => one[kind]));
    const full = turns.map((turn) => turn.full_tokens + turn.reply_tokens);
    const peak = turns.reduce((m, turn) => Math.max(m, turn.context_tokens + turn.reply_tokens), 0);
    const summary = `Tokens of ${mem1.plural(turns.length, "turn")}: at most ${
      mem1.number(peak)} at once${bound === null ? "" : `, bound ${mem1.number(bound)}`}`;
    const most = full.reduce((top, size) => Math.max(top, size), Math.max(peak, bound ?? 0));
    const told = h("p", { class: "told quiet" }, "");
    const tell = (turn) => { told.textContent = say(turns[turn - 1], found[turn - 1]); };
    let current = 1, place = () => {};

    const draw = (width) => {
      const ticks = mem1.ticks(0, most, 4), top = ticks.at(-1) || 1;
      const slot = Math.min(120, (width - LEFT - RIGHT) / turns.length);
      const gap = slot > 5 ? Math.min(30, slot * 0.25) : 0;
      const end = Math.max(LEFT + slot * turns.length, Math.min(width - RIGHT, LEFT + 160));
      const x = (i) => LEFT + slot * i;
      const y = (v) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * v / top;
      const heights = turns.map(() => 0);
      const bars = kinds.map((kind) => s("path", { class: `kind-${kind}`, d: found.map((one, i) => {
        if (!one[kind]) return "";
        const from = y(heights[i]), to = y((heights[i] += one[kind]));
        return `M${(x(i) + gap / 2).toFixed(2)} ${from.toFixed(1)}h${(slot - gap).toFixed(2)}V${
          to.toFixed(1)}h${(gap - slot).toFixed(2)}z`;
      }).join("") }));
      const every = Math.max(1,
        mem1.ticks(0, turns.length, Math.max(2, Math.floor(width / 60)))[1]);
      const numbered = turns.filter(({ turn }) => turn === 1 || turn % every === 0);
      const steps = full.map((v, i) =>
        `${i ? "L" : "M"}${x(i).toFixed(2)} ${y(v).toFixed(1)}h${slot.toFixed(2)}`);
      const band = s("rect",
        { class: "current", y: TOP - 8, height: HEIGHT - TOP - BOTTOM + 8,
          width: Math.max(3, slot) });
      const number = (event) => {
        const left = event.currentTarget.getBoundingClientRect().left;
        const i = Math.floor((event.clientX - left - LEFT) / slot);
        return i >= 0 && i < turns.length ? i + 1 : null;
      };
      const hear = (event) => {
        tell(number(event) ?? current);
      };
      place = () => band.setAttribute("x", x(current - 1) - Math.max(0, 3 - slot) / 2);
      place();
      return s("svg",
        { width, height: HEIGHT, role: "img", class: "budget", onpointermove: hear,
          onpointerleave: () => tell(current),
        onclick: (event) => { const turn = number(event); if (turn) open(turn); },
        "aria-label": summary },
        band,
        ticks.map((v) => s("g", null,
          s("path", { d: `M${LEFT} ${y(v)}H${end}`, class: v ? "grid" : "axis" }),
          s("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, mem1.compact(v)))),
        bars,
        s("path", { class: "full", d: steps.join("") }),
        bound !== null && s("path", { class: "bound", d: `M${LEFT} ${y(bound)}H${end}` }),
        numbered.map(({ turn }) =>
          s("text", { x: x(turn - 0.5), y: HEIGHT - 13, "text-anchor": "middle" }, turn)));
    };

    const line = (kind, text) =>
      h("li", null, s("svg", { width: 26, height: 10, "aria-hidden": "true" },
      s("path", { d: "M1 5H25", class: kind })), text);
    const legend = mem1.legend(kinds);
    legend.append(...[bound !== null && line("bound", `bound, ${mem1.number(bound)}`),
      line("full", "full context")].filter(Boolean));
    return {
      element: h("figure", { class: "timeline" },
        h("figcaption", null, "Tokens per turn"), legend, mem1.fit(draw), told),
      mark(turn) { current = turn; place(); tell(turn); },
    };
  };
})();
