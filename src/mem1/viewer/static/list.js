"use strict";
// The trajectories of a run: filtered, sorted, followed while they are written.
(() => {
  const { h, load, route } = mem1;
  const ROW = 34, POLL_MS = 2000;
  const COLUMNS = [
    ["task_id", "Task"], ["sample", "Sample"], ["context_policy", "Policy"],
      ["num_objectives", "N"],
    ["stop_reason", "Outcome"], ["reward", "Reward"], ["hits", "Hits"], ["num_turns", "Turns"],
    ["peak_tokens", "Peak"], ["question", "Question"],
  ];
  const STEP = ["step", "Step"];
  const NUMBERS = new Set(["sample", "step", "num_objectives", "reward", "hits", "num_turns",
    "peak_tokens"]);
  /** Columns of which a range may be asked for: in the address as `hits_from` and `hits_to`. */
  const RANGES = [["reward", "Reward"], ["hits", "Hits"], ["num_turns", "Turns"],
    ["peak_tokens", "Peak"]];

  /** What only training runs have comes after the task. */
  const withStep = (run, columns, place) =>
    run.kind === "train" ? columns.toSpliced(place, 0, STEP) : columns;

  const objects = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])));

  const keep = (wanted) => {
    const words = (wanted.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const ranges = [...RANGES, STEP].map(([name]) => [name,
      wanted[`${name}_from`] ? Number(wanted[`${name}_from`]) : -Infinity,
      wanted[`${name}_to`] ? Number(wanted[`${name}_to`]) : Infinity])
      .filter(([, from, to]) => from > -Infinity || to < Infinity);
    return (row) => (!wanted.stop || row.stop_reason === wanted.stop)
      && (!wanted.policy || row.context_policy === wanted.policy)
      && (!wanted.n || String(row.num_objectives) === wanted.n)
      && ranges.every(([name, from, to]) => row[name] >= from && row[name] <= to)
      && words.every((word) => row.text.includes(word) || row.task_id.toLowerCase().includes(word));
  };

  const order = (sort) => {
    const down = sort.startsWith("-") ? -1 : 1, name = sort.replace(/^-/, "");
    return (a, b) => {
      const [p, q] = [a[name], b[name]];
      const difference = typeof p === "number" ? p - q : String(p).localeCompare(String(q));
      return down * difference || a.trajectory - b.trajectory;
    };
  };

  const cell = (row, name) => {
    if (name === "task_id") return h("td", { class: name }, h("a",
      { href: route(["runs", row.run, "trajectories", row.trajectory]), title: row.task_id },
        row.task_id));
    if (name === "hits") return h("td", { class: name }, `${row.hits} / ${row.num_objectives}`);
    if (name === "peak_tokens") return h("td", { class: name }, mem1.number(row.peak_tokens),
      row.bound !== null && h("span", { class: "quiet" }, ` / ${mem1.number(row.bound)}`));
    if (name === "stop_reason") return h("td", { class: name }, mem1.words(row.stop_reason));
    return h("td", { class: name }, NUMBERS.has(name) ? mem1.number(row[name]) : row[name]);
  };

  const choice = (label, name, state, change) => {
    const select = h("select",
      { id: `filter-${name}`, onchange: () => change({ [name]: select.value }) });
    const offer = (values) => {
      select.replaceChildren(h("option", { value: "" }, "all"), ...values.map((value) =>
        h("option", { value, selected: state[name] === String(value) },
          mem1.words(String(value)))));
    };
    return { offer, element: h("p", null, h("label", { for: select.id }, label), select) };
  };

  const entry = (label, name, state, change, attributes) => {
    const input = h("input", { id: `filter-${name}`, value: state[name] ?? "", ...attributes,
      oninput: () => change({ [name]: input.value }) });
    return h("p", { class: `entry-${name}` }, h("label", { for: input.id }, label), input);
  };

  const range = ([name, label], state, change) => {
    const input = (end) => h("input", { type: "number", step: "any", value: state[`${name}_${end}`],
      placeholder: end, "aria-label": `${label} ${end}`, id: `filter-${name}_${end}`,
      oninput: (event) => change({ [`${name}_${end}`]: event.target.value }) });
    return h("fieldset", { class: "range" }, h("legend", null, label), input("from"), input("to"));
  };

  const headRow = (columns, state, change) => {
    const buttons = columns.map(([name, label]) => h("th", { scope: "col", class: name },
      h("button",
        { type: "button",
          onclick: () => change({ sort: state.sort === name ? `-${name}` : name }) },
        label)));
    const mark = () => columns.forEach(([name], place) => {
      const up = state.sort === name, down = state.sort === `-${name}`;
      buttons[place].setAttribute("aria-sort", up ? "ascending" : down ? "descending" : "none");
    });
    return { mark, element: h("tr", null, buttons) };
  };

  const filters = (run, state, change) => {
    const selects = [["Outcome", "stop", "stop_reason"], ["Policy", "policy", "context_policy"],
      ["N", "n", "num_objectives"]]
      .map(([label, name, column]) => ({ column, ...choice(label, name, state, change) }));
    return {
      element: h("form",
        { class: "filters", role: "search", "aria-label": "Filter",
          onsubmit: (e) => e.preventDefault() },
        entry("Text", "q", state, change,
          { type: "search", placeholder: "questions, answers, task" }),
        selects.map(({ element }) => element),
        withStep(run, RANGES, 0).map((column) => range(column, state, change))),
      offer: (rows) => selects.forEach(({ column, offer }) =>
        offer([...new Set(rows.map((row) => row[column]))].sort((a, b) => a > b ? 1 : -1))),
    };
  };

  /** The table, its state and what moves in it. */
  const listing = (run, parameters) => {
    const state = { sort: "trajectory", ...parameters };
    const status = h("p", { class: "status", role: "status" });
    const body = h("tbody");
    const change = (changes) => {
      Object.assign(state, changes);
      mem1.remember(["runs", run.run],
        { ...state, sort: state.sort === "trajectory" ? "" : state.sort });
      refresh();
    };
    const columns = withStep(run, COLUMNS, 1);
    const form = filters(run, state, change), head = headRow(columns, state, change);
    const make = (row) => h("tr", null, columns.map(([name]) => cell(row, name)));
    const rows = mem1.virtual({ body, rowHeight: ROW, make });
    let all = [], kept = [], at = -1;
    const table = h("table", { class: "listing" },
      h("caption", { class: "hidden" }, "Trajectories"), h("thead", null, head.element), body);
    const refresh = () => {
      kept = all.filter(keep(state)).sort(order(state.sort));
      table.setAttribute("aria-rowcount", kept.length + 1);
      const of = mem1.embedded && all.length < run.num_trajectories
        ? ` in this report, of ${mem1.number(run.num_trajectories)}` : "";
      status.replaceChildren(kept.length === all.length
        ? mem1.plural(all.length, "trajectory", "trajectories") + of
        : `${mem1.number(kept.length)} of ${mem1.number(all.length)} trajectories${of}`);
      head.mark();
      rows.show(kept);
    };
    const move = (by) => {
      if (!kept.length) return;
      const focused = document.activeElement.closest?.("tr[aria-rowindex]");
      at = focused ? focused.getAttribute("aria-rowindex") - 2 : at;
      at = Math.max(0, Math.min(kept.length - 1, at + by));
      rows.reveal(at)?.querySelector("a").focus({ preventScroll: true });
    };
    return {
      add(answer) {
        all = all.concat(objects(answer).map((row) => ({ ...row, run: run.run })));
        form.offer(all);
        refresh();
      },
      elements: [form.element, status, h("div", { class: "wide" }, table)],
      stop: rows.stop,
      keys: { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1),
        ArrowUp: () => move(-1),
        "/": () => document.getElementById("filter-q").focus() },
    };
  };

  mem1.listPage = async ({ path: [, number], parameters }) => {
    const { runs } = await load("runs");
    const run = runs.find((one) => String(one.run) === number);
    if (!run) throw new Error(`There is no run ${number}.`);
    const list = listing(run, parameters);
    const damaged = h("div", { role: "status" }), bad = new Map();
    let next = 0, timer = 0, stopped = false;
    const follow = async () => {
      try {
        const answer = await load(`runs/${number}/trajectories?from=${next}`);
        if (stopped) return;
        if (answer.rows.length || !next) list.add(answer);
        next = answer.next;
        answer.damaged.forEach(({ where, why }) => bad.set(where, why));
        damaged.replaceChildren(...[...bad].map(([where, why]) =>
          h("p", { class: "warning" }, `${where} can't be read: ${why}`)));
      } catch (error) {
        if (!next) throw error;
      }
      if (!mem1.embedded && !stopped) timer = setTimeout(follow, POLL_MS);
    };
    await follow();
    return {
      title: run.name, path: [[run.name]],
        keys: { ...list.keys, Escape: () => { location.hash = "#/"; } },
      stop() { stopped = true; clearTimeout(timer); list.stop(); },
      element: h("div", { class: "list-page" }, h("h1", { tabindex: "-1" }, run.name), damaged,
        list.elements),
    };
  };
})();
