"use strict";
// One turn: what the model saw, what it wrote, what came back, what changed, what was evicted.
(() => {
  const { h } = mem1;
  const LONG = 700;

  const title = ({ kind, turn }) => turn ? `${mem1.KINDS[kind]}, turn ${turn}` : mem1.KINDS[kind];

  /** Shade 0 to 8 of a log-probability: 0 is certain. */
  const shade = (logprob) => Math.min(8, Math.round(-logprob * 2));

  const piece = (text, place, { logprobs, trained, advantages }) => {
    const logprob = logprobs?.[place], advantage = advantages?.[place];
    const signed = advantage ? (advantage > 0 ? "up" : "down") : "";
    const said = [logprob !== undefined && logprob !== null && `log-prob ${logprob.toFixed(3)}`,
      trained && (trained[place] ? "trained" : "not trained"),
      advantage !== undefined && advantage !== null
        && `advantage ${advantage.toFixed(3)}`].filter(Boolean);
    return h("span", { class: `piece ${trained?.[place] ? "trained" : ""} ${signed} ${
      logprob === undefined || logprob === null ? ""
        : `shade-${shade(logprob)}`}`, title: said.join(" · ") || null },
    text);
  };

  const written = (pieces, known = {}) =>
    h("pre", { class: "text tokens" }, pieces.map((text, place) => piece(text, place, known)));

  /** Text as it is; line ends at its beginning are made visible. */
  const text = (content) => {
    const [ends] = content.match(/^\n*/);
    return h("pre", { class: "text" },
      [...ends].map((end) => h("span", { class: "line-end" }, end)),
      content.slice(ends.length) || " ");
  };

  const part = (segment, pieces, leaves) => {
    const heading = h("summary", null, mem1.swatch(segment.kind), title(segment),
      h("span", { class: "quiet" }, ` ${mem1.plural(segment.tokens, "token")}`),
      leaves && h("span", { class: "leaves" }, "evicted after this turn"));
    const folded = segment.kind === "prompt" && segment.text.length > LONG;
    return h("details", { class: `part edge-${segment.kind}`, open: !folded }, heading,
      pieces ? written(pieces) : text(segment.text));
  };

  const seen = (turn, segments, tokens) => h("section", { class: "seen" },
    h("h3", null, "What it saw",
      h("span", { class: "quiet" }, ` ${mem1.plural(turn.context_tokens, "token")}`)),
    turn.context.map((index, place) =>
      part(segments[index], tokens?.context[place], turn.evicted.includes(index))));

  /** State, action and what is neither; blanks between them are left out. */
  const parts = ({ reply }) => reply.filter(([, content], place) => content.trim() || !place);

  const NAMES = { internal_state: "internal state", action: "action", reply: "neither" };

  const wrote = (turn, tokens) => h("section", { class: "wrote" },
    h("h3", null, "What it wrote",
      h("span", { class: "quiet" }, ` ${mem1.plural(turn.reply_tokens, "token")}`)),
    turn.faults.length > 0
      && h("p", { class: "warning" }, `Form: ${turn.faults.map(mem1.words).join(", ")}`),
    tokens ? h("div", { class: "part edge-sampled" }, written(tokens.reply.pieces, tokens.reply),
      tokenKey(tokens))
      : parts(turn).map(([kind, content]) => h("div", { class: `part edge-${kind}` },
        h("p", { class: "label" }, mem1.swatch(kind), NAMES[kind],
          kind === "action" && turn.action
            && h("span", { class: "quiet" }, ` ${turn.action.name}`)),
        text(content))));

  const tokenKey = ({ reply, decoded }) => h("p", { class: "note" },
    "The stronger its shade, the less likely a token",
    reply.logprobs ? "" : " (log-probabilities unknown)", "; underlined is trained",
    reply.advantages ? ["; ", h("span", { class: "piece trained up" }, "above"), " or ",
      h("span", { class: "piece trained down" }, "below"), " expectation (sign of the advantage)"]
        : "",
    decoded ? "." : ". No tokenizer could be loaded: token ids.");

  const cameBack = (turn) => h("section", null, h("h3", null, "What came back"),
    turn.observation === null ? h("p", { class: "quiet" }, "Nothing: the episode ends here.")
      : h("div", { class: "part edge-observation" }, text(turn.observation)));

  const TAGS = { "=": "span", "-": "del", "+": "ins" };

  const changed = (turn) => turn.state_diff.length > 0 && h("section", null,
    h("h3", null, "What changed in the internal state"),
    h("p", { class: "diff" },
      turn.state_diff.flatMap(([sign, words]) => [h(TAGS[sign], null, words), " "])));

  const evicted = (turn, segments) => {
    const gone = turn.evicted.map((index) => segments[index]);
    const tokens = gone.reduce((sum, segment) => sum + segment.tokens, 0);
    return gone.length > 0 && h("section", null,
      h("h3", null, "What the next turn no longer sees",
        h("span", { class: "quiet" }, ` ${mem1.plural(tokens, "token")}`)),
      h("ul", { class: "evicted" }, gone.map((segment) => h("li", null, mem1.swatch(segment.kind),
        `${title(segment)}: `, h("span", { class: "clip" }, segment.text)))));
  };

  /** Two columns of sections; `tokens` is the turn's tokens answer or null. */
  mem1.turnView = (turn, segments, tokens) => h("div", { class: "turn-columns" },
    h("div", null, seen(turn, segments, tokens)),
    h("div", null, wrote(turn, tokens), changed(turn), cameBack(turn), evicted(turn, segments)));
})();
