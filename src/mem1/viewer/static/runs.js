"use strict";
// Runs: which there are, what differs, their figures with intervals, their curves.
(() => {
  const { h, load, data, table, route } = mem1;
  const CURVES = ["reward", "em_per_objective", "validation/reward", "validation/em", "kl",
    "entropy", "ratio_max",
    "logprob_gap_max", "peak_tokens", "grad_norm", "num_turns"];
  const FIGURES = ["reward", "em", "f1", "answer_rate", "num_turns", "peak_tokens", "dependency",
    "survival"];
  const NAMES = { em: "EM (of N)", f1: "F1 (of N)", dependency: "attention cost" };
  const FIRST = 6;

  const named = (figure) => NAMES[figure] ?? mem1.words(figure);

  const shown = (value) => value === undefined ? "–" : typeof value === "string" ? value
    : JSON.stringify(value);

  const chosenRuns = (runs, wanted) => {
    const numbers = wanted === undefined ? runs.slice(0, FIRST).map(({ run }) => run)
      : wanted.split(",").filter(Boolean).map(Number);
    return runs.filter(({ run }) => numbers.includes(run));
  };

  const toggle = (run, chosen, runs) => {
    const numbers = chosen.map((one) => one.run);
    const next = numbers.includes(run) ? numbers.filter((one) => one !== run) : [...numbers, run];
    const inOrder = runs.map((one) => one.run).filter((one) => next.includes(one));
    mem1.remember([], { runs: inOrder.join(",") || "none" });
    mem1.refresh();
  };

  const damage = ({ damaged }) => damaged.length > 0 && h("details", { class: "warning" },
    h("summary", null, `${mem1.plural(damaged.length, "line")} damaged`),
    h("ul", null, damaged.map(({ where, why }) => h("li", null, `${where}: ${why}`))));

  const runsTable = ({ runs, differing }, chosen) => table({
    caption: "Runs and the settings in which they differ; what most runs don't have is marked",
    className: "runs",
    heads: ["Run", "Show", "Kind", "Trajectories", ...differing.map((key) => h("code", null, key))],
    rows: runs.map((run) => [
      [h("a", { href: route(["runs", run.run]), title: run.folder }, run.name), damage(run)],
      h("input", { type: "checkbox", "aria-label": `Show ${run.name}`,
        checked: chosen.includes(run), onchange: () => toggle(run.run, chosen, runs) }),
      run.kind === "train" ? "training" : "evaluation",
      { class: "number", of: mem1.number(run.num_trajectories) },
      ...differing.map((key) =>
        ({ class: shown(run.config[key]) === usual(runs, key) ? "" : "differs",
        of: shown(run.config[key]) })),
    ]),
  });

  /** The value that most runs have; that of the first ones among equals. */
  const usual = (runs, key) => {
    const counts = new Map();
    for (const value of runs.map(({ config }) => shown(config[key])))
      counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts].sort(([, a], [, b]) => b - a)[0][0];
  };

  const interval = (estimate) => estimate ? [data(estimate.mean, mem1.mean(estimate.mean)),
    estimate.low !== null && h("span", { class: "interval" },
      ` [${mem1.mean(estimate.low)}, ${mem1.mean(estimate.high)}]`)] : "–";

  const figuresTable = (cells) => {
    const figures = FIGURES.filter((name) => cells.some(({ cell }) => cell.estimates[name]));
    return table({
      caption: "Figures: means over tasks, with 95 % intervals",
      className: "figures",
      heads: ["Run", "Context policy", "N", "Episodes", "Bound", ...figures.map(named)],
      rows: cells.map(({ run, cell }) => [
        run.name, cell.context_policy, { class: "number", of: cell.num_objectives },
        [mem1.number(cell.num_trajectories),
          cell.num_failures > 0 && ` (${cell.num_failures} failed)`],
        mem1.number(cell.bound), ...figures.map((name) => interval(cell.estimates[name])),
      ]),
    });
  };

  const lastOf = ({ curves }, name) => {
    const values = curves.curves[name] ?? [];
    const place = values.findLastIndex((value) => value !== null && value !== undefined);
    return place < 0 ? undefined : { value: values[place], step: curves.steps[place] };
  };

  /** Training runs: where each curve ends. */
  const lastValues = (trained) => {
    const rows = CURVES.map((name) => [name, ...trained.map((one) => lastOf(one, name))])
      .filter(([, ...ends]) => ends.some(Boolean))
      .map(([name, ...ends]) => [mem1.words(name),
        ...ends.map((end) => end ? [data(end.value),
          h("span", { class: "interval" }, ` step ${mem1.number(end.step)}`)] : "–"),
        ...(ends.length === 2
          ? [ends.every(Boolean) ? data(ends[1].value - ends[0].value) : "–"] : [])]);
    return rows.length > 0 && table({ caption: "Training: the last value of each curve",
      className: "figures last", rows, heads: ["Curve", ...trained.map(({ run }) => run.name),
        ...(trained.length === 2 ? ["Second − first"] : [])] });
  };

  /** Two runs: figures under one another's name, and what lies between. */
  const sideBySide = ([a, b], cells) => {
    const own = [a, b].map((run) => cells.filter((one) => one.run === run));
    const policies = own.map((of) => new Set(of.map(({ cell }) => cell.context_policy)));
    const single = policies.every(({ size }) => size === 1);
    const key = ({ cell }) =>
      `${single ? "" : `${cell.context_policy}, `}N = ${cell.num_objectives}`;
    const [left, right] = own.map((of) => new Map(of.map((one) => [key(one), one.cell])));
    const head = (run, place) => single ? `${run.name} (${[...policies[place]]})` : run.name;
    const rows = [...new Set([...left.keys(), ...right.keys()])].flatMap((name) =>
      FIGURES.map((figure) => {
      const [one, two] = [left, right].map((cell) => cell.get(name)?.estimates[figure]);
      return (one || two) && [`${name}: ${named(figure)}`, interval(one), interval(two),
        one && two ? data(two.mean - one.mean, mem1.mean(two.mean - one.mean)) : "–"];
    }).filter(Boolean));
    return [
      rows.length > 0 && table({ caption: "Side by side: means over tasks, with 95 % intervals",
        className: "figures", heads: ["Figure", head(a, 0), head(b, 1), "Second − first"], rows }),
      settingsTable([a, b]),
    ];
  };

  const settingsTable = (runs) => {
    const keys = [...new Set(runs.flatMap(({ config }) => Object.keys(config)))].sort();
    return h("details", null, h("summary", null, "All settings"), table({
      caption: "All settings; what differs is marked", className: "settings",
      heads: ["Setting", ...runs.map(({ name }) => name)],
      rows: keys.map((key) => [h("code", null, key), ...runs.map(({ config }) =>
        ({ class: shown(config[key]) === usual(runs, key) ? "" : "differs",
          of: shown(config[key]) }))]),
    }));
  };

  const againstN = (cells) => {
    const names = [...new Set(cells.map(({ run }) => run))].length > 1;
    const label = ({ run, cell }) => names ? `${run.name}: ${cell.context_policy}`
      : cell.context_policy;
    const labels = [...new Set(cells.map(label))];
    const series = (figure, divide) => labels.map((name, look) => ({ label: name, look,
      points: cells.filter((one) => label(one) === name && one.cell.estimates[figure])
        .map(({ cell }) => {
        const { mean, low, high } = cell.estimates[figure], by = divide ? cell.num_objectives : 1;
        return { x: cell.num_objectives, y: mean / by, low: low === null ? null : low / by,
          high: high === null ? null : high / by };
      }).sort((p, q) => p.x - q.x) })).filter(({ points }) => points.length);
    const charts = [["reward", "reward", false], ["em", "exact match per objective", true],
      ["peak_tokens", "peak tokens", false],
      ["dependency", "attention cost", false]]
      .map(([figure, title, divide]) =>
        ({ title, series: series(figure, divide), xLabel: "objectives N",
        spread: true })).filter((chart) => chart.series.length);
    return charts.length > 0
      && h("section", null, h("h2", null, "Against the number of objectives"),
      mem1.seriesLegend(series("peak_tokens", false)),
        h("div", { class: "charts" }, charts.map(mem1.lineChart)));
  };

  const learning = (trained) => {
    const charts = CURVES.map((name) => ({ title: mem1.words(name), xLabel: "step",
      series: trained.map(({ run, curves, look }) => ({ label: run.name, look,
        points: (curves.curves[name] ?? []).map((y, i) => ({ x: curves.steps[i], y }))
          .filter(({ y }) => y !== null && y !== undefined) }))
            .filter(({ points }) => points.length) }))
      .filter((chart) => chart.series.length);
    return charts.length > 0 && h("section", null, h("h2", null, "Learning curves"),
      mem1.seriesLegend(trained.map(({ run, look }) => ({ label: run.name, look }))),
      h("div", { class: "charts" }, charts.map(mem1.lineChart)));
  };

  mem1.runsPage = async ({ parameters }) => {
    const answer = await load("runs");
    const chosen = chosenRuns(answer.runs, parameters.runs);
    const cells = (await Promise.all(chosen.map(async (run) =>
      (await load(`runs/${run.run}/cells`)).cells.map((cell) => ({ run, cell }))))).flat();
    const trained = await Promise.all(chosen.filter(({ kind }) => kind === "train")
      .map(async (run, look) =>
      ({ run, look, curves: await load(`runs/${run.run}/curves`) })));
    return { title: "Runs", path: [], element: h("div", { class: "runs-page" },
      h("h1", { tabindex: "-1" }, "Runs"),
      answer.runs.length ? runsTable(answer, chosen) : h("p", null, "No runs here yet."),
      h("p", { class: "note" }, chosen.length === 2 ? "Two runs are shown side by side."
        : "Choose two runs to see them side by side."),
      learning(trained),
      againstN(cells),
      h("section", null, h("h2", null, "Figures"),
        lastValues(trained),
        chosen.length === 2 ? sideBySide(chosen, cells)
          : [cells.length > 0 && figuresTable(cells),
            chosen.length > 0 && settingsTable(chosen)])) };
  };
})();
