"""Packed attention against the boolean mask, and in models that are served and that aren't."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from episodes import random_group  # noqa: E402
from models import VOCAB, random_model  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from mem1.context import InternalState  # noqa: E402
from mem1.engines.kernels import attend_plainly  # noqa: E402
from mem1.errors import ModelError  # noqa: E402
from mem1.packing import pack  # noqa: E402
from mem1.train.attention import block_mask_of, check_model, packed  # noqa: E402
from mem1.train.merge import (  # noqa: E402
    Run,
    attend_by_runs,
    layout_of,
    plain_backward,
    runs,
)
from mem1.train.scoring import score  # noqa: E402
from mem1.train.verify import verify  # noqa: E402


def test_keys_forgotten_together_are_one_run():
    # A trunk of 3, a branch of 2 with a leaf of 1, and a second branch of 2.
    visible_until = np.array([8, 8, 8, 6, 6, 6, 8, 8])
    assert runs(visible_until) == [Run(0, 3, 8), Run(3, 6, 6), Run(6, 8, 8)]
    assert runs(np.array([1])) == [Run(0, 1, 1)]


def forest(size: int, *, seed: int) -> np.ndarray:
    """visible_until of random nested branches."""
    rng = random.Random(seed)
    until, open_runs = np.full(size, size), [0]
    for place in range(size):
        if rng.random() < 0.1:
            open_runs.append(place)
        while len(open_runs) > 1 and rng.random() < 0.08:
            first = open_runs.pop()
            until[first:place][until[first:place] > place] = place
    return until


def tensors(size: int, *, dtype, width: int = 16) -> tuple:
    """Query of 4 heads, key and value of 2, and a gradient of the output."""
    make = torch.Generator().manual_seed(0)
    shapes = [(4, 16), (2, 16), (2, width), (4, width)]
    return tuple(
        torch.randn(1, heads, size, dim, dtype=dtype, generator=make) for heads, dim in shapes
    )


def with_gradients(attend, query, key, value, grad) -> list:
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    out = attend(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


LAYOUTS = {f"forest {seed}": forest(150, seed=seed) for seed in range(4)} | {
    "one query sees the trunk": np.array([4, 4, 4, 4, 5]),
    "a trunk whose last branch is one token": np.array([5, 5, 4, 4, 5]),
    "evicted in the middle, as carried": np.array([7, 7, 5, 5, 7, 7, 7]),
    "each token alone": np.array([1, 2, 3]),
}


@pytest.mark.parametrize("width", [16, 8])
@pytest.mark.parametrize("name", LAYOUTS)
def test_joined_parts_are_attention_under_the_mask(name, width):
    until = LAYOUTS[name]
    place = np.arange(len(until))
    mask = torch.from_numpy((place <= place[:, None]) & (place[:, None] < until))
    given = tensors(len(until), dtype=torch.float64, width=width)
    found = with_gradients(
        lambda q, k, v: attend_by_runs(q, k, v, layout=layout_of(until), scale=0.2), *given
    )
    expected = with_gradients(
        lambda q, k, v: scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=0.2, enable_gqa=True
        ),
        *given,
    )
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-13


@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_classed_as_the_mask_in_full_would_have_them(seed):
    until = torch.from_numpy(forest(1000, seed=seed))
    padded = torch.cat([until, torch.arange(1000, 1024) + 1])
    found = block_mask_of(until)
    expected = create_block_mask(
        lambda batch, head, query, key: (key <= query) & (query < padded[key]),
        *(None, None, 1024, 1024),
        device="cpu",
    )
    for kind in ("kv", "full_kv", "q", "full_q"):
        one, other = (
            [
                which[:count].tolist()
                for which, count in zip(
                    getattr(mask, f"{kind}_indices")[0, 0],
                    getattr(mask, f"{kind}_num_blocks")[0, 0],
                    strict=True,
                )
            ]
            for mask in (found, expected)
        )
        assert one == other


@pytest.mark.parametrize("causal", [True, False])
def test_matrix_products_give_what_the_kernel_gives(causal):
    query, _, _, grad = tensors(700, dtype=torch.float64)
    key, value = (x.repeat_interleave(2, 1) for x in tensors(700, dtype=torch.float64)[1:3])
    out, lse = attend_plainly(query, key, value, causal=causal, scale=0.3)
    found = plain_backward(grad, (query, key, value), out=out, lse=lse, causal=causal, scale=0.3)
    expected = with_gradients(
        lambda *x: scaled_dot_product_attention(*x, is_causal=causal, scale=0.3),
        *(query, key, value, grad),
    )
    for one, other in zip((out, *found), expected, strict=True):
        assert (one - other).abs().max() < 1e-13


def test_the_kernel_of_gpus_takes_what_it_is_given():
    layout = layout_of(np.array([8, 8, 8, 6, 6, 6, 8, 8]), device="meta")
    query, key = (
        torch.empty(1, heads, 8, 64, dtype=torch.bfloat16, device="meta").requires_grad_()
        for heads in (4, 2)
    )
    out = attend_by_runs(query, key, key, layout=layout, scale=0.1)
    out.sum().backward()
    assert (out.shape, query.grad.shape, key.grad.shape) == (query.shape, query.shape, key.shape)


def packed_row(*, size: int = 2):
    rng = random.Random(0)
    group = random_group(InternalState(), rng=rng, size=size, vocab=VOCAB, lengths=(60, 20, 6, 40))
    return pack(group, row_tokens=5000)[0]


def test_a_model_attends_in_its_own_way_again_even_after_an_error():
    model, ids = random_model("qwen3"), torch.arange(9)[None]
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(TypeError), packed(model, np.array([2, 2])):
            model(ids, no_such_argument=model.config._attn_implementation + 1)
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_computed_again_attend_as_the_first_time(reentrant):
    model, row = random_model("qwen2").train(), packed_row()

    def gradient():
        model.zero_grad()
        logprobs = score(model, row, temperature_T=torch.ones(len(row.targets))).logprobs_T
        (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    plain = gradient()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert torch.equal(gradient(), plain)


SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def tiny_model(name: str, **settings):
    config = transformers.AutoConfig.for_model(name, **SIZES | settings)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


SERVED = {
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 16},
    "granite": {"attention_multiplier": 0.3},
    "gpt_neox": {"attention_dropout": 0.0, "hidden_dropout": 0.0},
    "olmo2": {},
    "opt": {"dropout": 0.0, "ffn_dim": 96, "word_embed_proj_dim": 64},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_is_exact(name):
    model = tiny_model(name, **SERVED[name])
    rng = random.Random(0)
    group = random_group(InternalState(), rng=rng, size=2, vocab=VOCAB, lengths=(60, 20, 6, 40))
    assert verify(model, group).exact


REFUSED = {
    "bloom": ({"n_head": 4}, "transformers' AttentionInterface"),
    "cohere": ({}, "its logits aren't the head's alone"),
    "doge": ({}, "a mask of its own"),
    "falcon": ({"alibi": True}, "transformers' AttentionInterface"),
    "gemma2": ({"sliding_window": None, "layer_types": ["full_attention"] * 2}, "softcapping = 50"),
    "gpt2": ({"n_embd": 64, "n_head": 4, "n_layer": 2}, "resid_pdrop = 0.1: set that to 0"),
    "gpt_oss": ({"head_dim": 16, "layer_types": ["full_attention"] * 2}, "attention sinks"),
    "llama": ({"attention_dropout": 0.1}, "attention_dropout = 0.1: set that to 0"),
    "mamba": ({}, "transformers' AttentionInterface"),
    "mistral": ({"sliding_window": 64}, "sliding windows"),
    "mpt": ({"d_model": 64, "n_heads": 4, "n_layers": 2}, "transformers' AttentionInterface"),
    "nemotron": ({}, "doesn't tell its layers"),
    "qwen2": ({"use_sliding_window": True, "max_window_layers": 1}, "sliding windows"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "recurrent layers"),
    "qwen3_next": ({}, "transformers' AttentionInterface"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_exactly_is_refused_by_name(name):
    settings, reason = REFUSED[name]
    model = tiny_model(name, **settings)
    with pytest.raises(ModelError, match=reason) as caught:
        check_model(model)
    assert "can't be trained exactly" in str(caught.value)


def test_a_model_with_an_encoder_is_refused():
    config = transformers.T5Config(vocab_size=9, d_model=8, d_ff=8, num_layers=1, num_heads=1)
    with pytest.raises(ModelError, match="T5ForConditionalGeneration can't be trained exactly"):
        check_model(transformers.T5ForConditionalGeneration(config))
