"use strict";
// What became of each fact: a row per fact, a bar per stretch of turns with the same mark.
(() => {
  const { h } = mem1;
  const MARKS = {
    held: ["●", "the state says it"],
    lost: ["○", "held before, not now"],
    missed: ["–", "seen, never held"],
    corrupted: ["≠", "the state gives a value it never had"],
    invented: ["?", "the state says it, nobody told"],
    unseen: ["·", "no observation told it yet"],
    stale: ["~", "said though a newer one counts"],
    superseded: ["×", "a newer one counts, and it's gone"],
  };
  const FIGURES = {
    survival: "survival per turn", half_life: "half-life in turns", corruption: "corrupted",
      invention: "invented",
    redundancy: "redundant queries",
  };

  /** Stretches of equal marks, cut after turns that tell the fact: [mark, first, last, told]. */
  const stretches = ({ marks, told }) => {
    const tells = new Set(told), found = [];
    marks.forEach((mark, place) => {
      const last = found.at(-1), turn = place + 1;
      if (last && last[0] === mark && !last[3]) [last[2], last[3]] = [turn, tells.has(turn)];
      else found.push([mark, turn, turn, tells.has(turn)]);
    });
    return found;
  };

  const bar = ([mark, first, last, told]) => {
    const turns = first === last ? `turn ${first}` : `turns ${first}–${last}`;
    const said = `${mark}, ${turns}${told ? `; told by the observation of turn ${last}` : ""}`;
    return h("td",
      { colspan: last - first + 1, class: `mark-${mark}${told ? " told" : ""}`, title: said },
      h("span", { "aria-hidden": "true" }, MARKS[mark][0]), h("span", { class: "hidden" }, said));
  };

  const heads = (turns) => {
    const every = turns > 40 ? 10 ** Math.ceil(Math.log10(turns / 30)) : 1;
    const spans = [];
    for (let turn = 1; turn <= turns; turn += every) spans.push([turn,
      Math.min(every, turns - turn + 1)]);
    return spans.map(([turn, span]) => h("th", { scope: "col", colspan: span }, turn));
  };

  const row = (fact, objectives) => h("tr", null,
    h("th", { scope: "row" }, fact.key || objectives[fact.objective]?.question,
      h("span", { class: "value" }, ` ${fact.values.join(" / ")}`),
      fact.page && fact.page !== fact.key && h("span", { class: "quiet" }, ` ${fact.page}`)),
    stretches(fact).map(bar),
    h("td", { class: "used" }, fact.used ? "✓" : "–",
      h("span", { class: "hidden" }, fact.used ? "used" : "not used")));

  const legend = (facts) => {
    const there = new Set(facts.flatMap(({ marks }) => marks));
    return h("ul", { class: "legend marks" },
      Object.entries(MARKS).filter(([mark]) => there.has(mark))
        .map(([mark, [sign, meaning]]) => h("li", null,
        h("span", { class: `sign mark-${mark}`, "aria-hidden": "true" }, sign), h("b", null, mark),
          ` ${meaning}`)),
      h("li", null, h("span", { class: "sign told", "aria-hidden": "true" }), h("b", null, "told"),
        " this turn's observation tells it"));
  };

  mem1.factsView = ({ facts, figures, turns, objectives }) => h("section", { class: "facts" },
    h("h2", null, "Facts"),
    facts.length === 0 ? h("p", null, "This task lists no facts.") : [
      h("dl", { class: "figures-line" },
        Object.entries(FIGURES).filter(([name]) => name in figures).map(([name, label]) =>
        h("div", null, h("dt", null, label), h("dd", null, mem1.data(figures[name]))))),
      legend(facts),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Facts by turn" },
        h("table",
          { class: `grid ${turns.length > 40 ? "dense" : turns.length < 13 ? "loose" : ""}` },
          h("caption", { class: "hidden" },
            "What the internal state of each turn holds of each fact"),
          h("colgroup", null, h("col"), turns.map(() => h("col", { class: "turn-col" })), h("col")),
          h("thead", null, h("tr", null, h("th", { scope: "col" }, "Fact"), heads(turns.length),
            h("th", { scope: "col" }, "In the answer"))),
          h("tbody", null, facts.map((fact) => row(fact, objectives)))))]);
})();
