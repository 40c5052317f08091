"""Scores of a row's sampled tokens against a log-softmax over whole logits."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from episodes import make_trajectory  # noqa: E402
from models import VOCAB, random_model  # noqa: E402

from mem1.context import Full  # noqa: E402
from mem1.errors import ModelError  # noqa: E402
from mem1.packing import pack  # noqa: E402
from mem1.train.scoring import hidden_states, score, values  # noqa: E402

LONG = [(7 * place) % 500 for place in range(1100)]
"""A reply longer than a chunk of logits."""


def row_of(reply: list[int]):
    trajectory = make_trajectory(Full(), prompt=[1, 2, 3], replies=[(reply, [5])], observations=[])
    return pack([trajectory], row_tokens=5000)[0]


def plain(model, row, temperature_T) -> tuple:
    """Log-probabilities and entropy by the model's own logits; the row is one chain."""
    ids = torch.from_numpy(row.token_ids)
    logits = model(ids[None], use_cache=False).logits[0, 2:-1]
    logp = (logits.to(temperature_T.dtype) / temperature_T[:, None]).log_softmax(-1)
    return logp.gather(1, ids[3:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def with_head_bias():
    config = transformers.PhiConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    torch.manual_seed(0)
    model = transformers.PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model.double().eval()


def gradient(model, logprobs, entropy):
    """Of a sum in which every token's log-probability and entropy weigh differently."""
    weights = torch.linspace(-1, 1, len(logprobs), dtype=logprobs.dtype)
    model.zero_grad()
    (logprobs * weights + entropy * weights.flip(0).exp()).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("model", [random_model("llama", dtype=torch.float64), with_head_bias()])
def test_scores_and_their_gradients_are_those_of_whole_logits(model):
    row = row_of(LONG)
    at = torch.linspace(0.5, 2, len(row.targets), dtype=torch.float64)
    scores = score(model, row, temperature_T=at)
    found, expected = (scores.logprobs_T, scores.entropy_T), plain(model, row, at)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float64
        assert (one - other).abs().max() < 1e-9
    one, other = gradient(model, *found), gradient(model, *expected)
    assert (one - other).norm() / other.norm() < 1e-9


def test_values_read_the_states_that_predict():
    model, row = random_model("llama"), row_of([7, 8, 9])
    head = torch.nn.Linear(96, 1)
    scores = score(model, row, temperature_T=torch.ones(4), value_head=head)
    expected = head(model.model(torch.from_numpy(row.token_ids)[None]).last_hidden_state[0, 2:-1])
    assert torch.allclose(scores.values_T, expected[:, 0], atol=1e-5)
    assert torch.equal(scores.values_T, values(model, row, value_head=head))


def test_the_softmax_is_float32_in_a_bfloat16_model():
    model, row = random_model("llama").bfloat16(), row_of([7, 8, 9])
    scores = score(model, row, temperature_T=torch.ones(4))
    assert (scores.logprobs_T.dtype, scores.entropy_T.dtype) == (torch.float32, torch.float32)
    logits = hidden_states(model, row) @ model.lm_head.weight.T
    expected = logits.float().log_softmax(-1)[range(4), row.token_ids[3:]]
    assert torch.allclose(scores.logprobs_T, expected, atol=1e-5)


def adapted(**settings):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
    return peft.get_peft_model(random_model("qwen2"), config)


def test_adapters_score_as_if_merged_and_alone_learn():
    model, row = adapted(target_modules=["q_proj", "down_proj"]), row_of([7, 8, 9])
    scores = score(model, row, temperature_T=torch.ones(4))
    scores.logprobs_T.sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {name for name, _ in model.named_parameters() if "lora" in name}
    with torch.no_grad():
        expected, _ = plain(model.merge_and_unload(), row, torch.ones(4))
    assert torch.allclose(scores.logprobs_T, expected, atol=1e-5)


def test_adapters_around_the_head_are_refused_not_left_out():
    model = adapted(target_modules=["lm_head"])
    with pytest.raises(ModelError, match=r"the output head is a peft\.\S+Linear, not a plain"):
        score(model, row_of([7]), temperature_T=torch.ones(2))
