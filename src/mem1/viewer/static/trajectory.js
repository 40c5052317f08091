"use strict";
// One trajectory: outcome, timeline, one turn at a time; its facts; its mask.
(() => {
  const { h, load, data } = mem1;
  const ROW = 30, FEW = 4;

  const times = (more, less) => less ? `${mem1.mean(more / less)} times` : "–";

  const outcome = (it) => {
    const { savings, metrics, objectives } = it;
    const hits = objectives.filter(({ em }) => em).length;
    const lines = [
      ["Outcome", mem1.words(it.stop_reason)],
      ["Reward", data(it.reward)],
      ["Answered right", `${hits} of ${objectives.length}`],
      ["Turns", data(metrics.num_turns)],
      ["Peak tokens",
        [data(metrics.peak_tokens), it.bound !== null && ` of at most ${mem1.number(it.bound)}`]],
      ["Full context's peak",
        [data(savings.full_peak_tokens),
          ` (${times(savings.full_peak_tokens, savings.peak_tokens)})`]],
      ["Attention cost of full context", times(savings.full_dependency, savings.dependency)],
    ];
    return h("dl", { class: "figures-line" }, lines.map(([term, value]) =>
      h("div", null, h("dt", null, term), h("dd", null, value))));
  };

  const objectives = (it) => h("details", { open: it.objectives.length <= FEW },
    h("summary", null,
      `${mem1.plural(it.objectives.length, "objective")}, gold and given answers`),
    answers(it));

  const answers = (it) => mem1.table({
    caption: "Objectives and answers",
    className: "objectives",
    heads: ["Question", "Gold", "Given", "EM", "F1"],
    rows: it.objectives.map((one) => [one.question, one.answers.join(" / "), one.given ?? "–",
      { class: one.em ? "right" : "wrong", of: one.em ? "✓ 1" : "✗ 0" }, data(one.f1)]),
  });

  const numbers = (it) => h("details", null, h("summary", null, "All figures"), mem1.table({
    caption: "Figures of this trajectory",
    heads: ["Figure", "Value"],
    rows: [...Object.entries(it.metrics),
      ...Object.entries(it.reward_parts).map(([name, value]) => [`reward: ${name}`, value])]
      .map(([name, value]) => [mem1.words(name), { class: "number", of: data(value) }]),
  }));

  const action = ({ action: one }) => one ? `${one.name}: ${one.argument}` : "no action";

  /** All turns as a list; only what is in view exists. */
  const turnList = (it, address) => {
    const body = h("tbody");
    const heads = ["Turn", "Action", "Tokens"];
    const table = h("table", { class: "turns", "aria-rowcount": it.turns.length + 1 },
      h("caption", { class: "hidden" }, "Turns"),
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))), body);
    const element = h("nav", { class: "turn-list", "aria-label": "Turns" }, table);
    let current = 0;
    const make = (turn) => h("tr", null, h("th", { scope: "row" }, turn.turn),
      h("td", null,
        h("a", { href: address(turn.turn), "aria-current": turn.turn === current ? "step" : null },
          action(turn))),
      h("td", null, mem1.number(turn.context_tokens + turn.reply_tokens)));
    const rows = mem1.virtual({ body, rowHeight: ROW, make, scroller: element });
    return { element, stop: rows.stop,
      mark(turn) { current = turn; rows.show(it.turns); rows.reveal(turn - 1); } };
  };

  /** The turns' part of the page: timeline, list, one turn. */
  const turnsView = (it, base) => {
    const address = (turn) => `#/${base}/turns/${turn}`;
    const open = (turn) => {
      const there = Math.max(1, Math.min(it.turns.length, turn));
      location.hash = address(there);
      show(there);
    };
    const budget = mem1.budget(it, open), list = turnList(it, address);
    const box = h("div", { class: "turn" });
    const pressed = h("button", { type: "button", "aria-pressed": "false", onclick: () => swap() },
      "Tokens");
    const heading = h("h2", { id: "turn" });
    const back = h("a", null, "← Previous"), on = h("a", null, "Next →");
    let current = 0, withTokens = false;

    const link = (element, turn) => {
      const there = turn >= 1 && turn <= it.turns.length;
      element[there ? "setAttribute" : "removeAttribute"]("href", address(turn));
    };
    const show = async (turn) => {
      if (turn === current) return;
      current = turn;
      heading.replaceChildren(`Turn ${turn} `,
        h("span", { class: "quiet" }, `of ${mem1.number(it.turns.length)}`));
      link(back, turn - 1);
      link(on, turn + 1);
      budget.mark(turn);
      list.mark(turn);
      await draw(turn);
    };
    const draw = async (turn) => {
      const wanted = withTokens;
      const tokens = wanted ? await load(`${base}/turns/${turn}/tokens`).catch((error) => error)
        : null;
      if (current !== turn || wanted !== withTokens) return;
      const failed = tokens instanceof Error;
      box.replaceChildren(...[failed && h("p", { class: "warning" }, tokens.message),
        mem1.turnView(it.turns[turn - 1], it.segments, failed ? null : tokens)].filter(Boolean));
    };
    const swap = () => {
      withTokens = !withTokens;
      pressed.setAttribute("aria-pressed", withTokens);
      return draw(current);
    };
    const step = (by) => () => open(current + by);
    return {
      show, stop: list.stop,
      keys: { n: step(1), p: step(-1), ArrowRight: step(1), ArrowLeft: step(-1), j: step(1),
        k: step(-1), t: swap },
      element: it.turns.length === 0 ? h("p", null, "No turn was taken.") : [budget.element,
        h("div", { class: "with-list" }, list.element, h("section", { "aria-labelledby": "turn" },
          h("div", { class: "turn-head" }, heading, h("p", { class: "steps" }, back, on, pressed)),
            box))],
    };
  };

  const tabs = (base, chosen) => h("nav", { class: "tabs", "aria-label": "Views" },
    [["Turns", "turns/1"], ["Facts", "facts"], ["Mask", "mask"]].map(([label, end]) => h("a", {
      href: `#/${base}/${end}`, "aria-current": end.startsWith(chosen) ? "page" : null }, label)));

  const VIEWS = new Set(["turns", "facts", "mask"]);

  mem1.trajectoryPage = async ({ path, parameters }) => {
    const [, run, , number, given = "turns"] = path;
    const view = VIEWS.has(given) ? given : "turns";
    const base = `runs/${run}/trajectories/${number}`;
    const [{ runs }, it] = await Promise.all([load("runs"), load(base)]);
    const name = runs.find((one) => String(one.run) === run)?.name ?? run;
    const turns = view === "turns" ? turnsView(it, base) : null;
    const turn = (wanted) => Math.max(1, Math.min(it.turns.length, Number(wanted) || 1));
    if (it.turns.length) await turns?.show(turn(path[5]));
    const mask = view === "mask" ? await mem1.maskView(base, parameters.group === "1") : null;
    return {
      title: it.task_id, path: [[name, `#/runs/${run}`], [it.task_id]],
      keys: { ...turns?.keys, Escape: () => { location.hash = `#/runs/${run}`; } },
      stop: () => (turns ?? mask)?.stop(),
      /** Another turn of the same trajectory needs no new page. */
      takes(next) {
        const same = turns && next.path.slice(0, 4).join() === path.slice(0, 4).join()
          && (next.path[4] ?? "turns") === "turns";
        if (same && it.turns.length) turns.show(turn(next.path[5]));
        return Boolean(same);
      },
      element: h("div", { class: "trajectory-page" },
        h("h1", { tabindex: "-1" }, it.task_id),
        h("p", { class: "quiet" },
          `${it.context_policy}, rollout ${it.sample}, ${mem1.number(it.seconds)} s, ${
          it.mode === "carry" ? "each token computed once" : "contexts encoded anew"}`),
        it.error && h("p", { class: "warning" }, it.error),
        outcome(it), objectives(it), numbers(it), tabs(base, view),
        turns?.element, mask?.element, view === "facts" && mem1.factsView(it)),
    };
  };
})();
