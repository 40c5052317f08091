"use strict";
// Lines with intervals in SVG. A series is {label, look, points: [{x, y, low, high}]}; its look is
// a number that gives colour, dash and marker together: no line is told by colour alone.
(() => {
  const { h, s } = mem1;
  const HEIGHT = 190, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 34;
  const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
  const MARKERS = [
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.4L4 3.2L-4 3.2z",
    "M0 -4.6L4 0L0 4.6L-4 0z",
  ];
  const COLOURS = 6;

  /** About `count` round numbers that span a range, zero included where it's near. */
  mem1.ticks = (low, high, count) => {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((f) => f * power >= raw) * power;
    const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
    return Array.from({ length: last - first + 1 }, (_, place) => (first + place) * step);
  };

  mem1.compact = (value) => {
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
    if (size && size < 1e-3) return value.toExponential(1).replace(".0e", "e");
    return `${+value.toPrecision(3)}`;
  };

  const path = (places) =>
    places.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`)
    .join("");

  const marks = ({ look, points }, x, y) => {
    const places = points.map((point) => [x(point.x), y(point.y)]);
    const bars = points.filter((point) => point.low !== null && point.low !== undefined)
      .map((point) => path([[x(point.x), y(point.low)], [x(point.x), y(point.high)]]));
    return s("g", { class: `series look-${look % COLOURS}` },
      s("path", { d: path(places), class: "line", "stroke-dasharray": DASHES[look % 4] }),
      s("path", { d: bars.join(""), class: "interval" }),
      points.length <= 24 && places.map(([a, b]) => s("path",
        { d: MARKERS[look % 4], class: "marker",
          transform: `translate(${a.toFixed(1)} ${b.toFixed(1)})` })));
  };

  const draw = (width, { series, xLabel, title, spread }) => {
    const all = series.flatMap(({ points }) => points);
    const ys = all.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]);
    const yTicks = mem1.ticks(Math.min(0, ...ys), Math.max(...ys, 0), 4);
    const xs = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b);
    const scale = spread ? Math.log2 : (value) => value;
    const from = scale(xs[0]), to = scale(xs.at(-1));
    const [bottom, top] = [yTicks[0], yTicks.at(-1)];
    const x = (v) =>
      LEFT + (width - LEFT - RIGHT) * (to > from ? (scale(v) - from) / (to - from) : 0.5);
    const y = (v) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (v - bottom) / (top - bottom || 1);
    const xTicks = spread ? xs
      : mem1.ticks(xs[0], xs.at(-1), 5).filter((v) => v >= xs[0] && v <= xs.at(-1));
    return s("svg",
      { width, height: HEIGHT, role: "img", "aria-label": `${title}, against ${xLabel}` },
      yTicks.map((v) => s("g", null,
        s("path", { d: `M${LEFT} ${y(v)}H${width - RIGHT}`, class: v ? "grid" : "axis" }),
        s("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, mem1.compact(v)))),
      xTicks.map((v) => s("text", { x: x(v), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" },
        mem1.compact(v))),
      s("text",
        { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle", class: "label" },
        xLabel),
      series.map((one) => marks(one, x, y)));
  };

  /** A titled small chart; {title, xLabel, series, spread: x in powers of two}. */
  mem1.lineChart = (chart) => h("figure", { class: "chart" },
    h("figcaption", null, chart.title), mem1.fit((width) => draw(width, chart)));

  /** What the lines of several charts mean, once. */
  mem1.seriesLegend = (series) => h("ul", { class: "legend" }, series.map(({ label, look }) =>
    h("li", null, s("svg", { width: 34, height: 12, "aria-hidden": "true", class: "sample" },
      marks({ look, points: [{ x: 0, y: 0 }, { x: 1, y: 0 }] }, (v) => 4 + 26 * v, () => 6)),
        label)));
})();
