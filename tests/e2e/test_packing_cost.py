"""benchmarks/packing_cost.py: every exact layout tells the same log-probabilities and gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from packing_cost import LAYOUTS, make_layout, one_pass  # noqa: E402
from stitched import Step  # noqa: E402

SIZES = ((5, 2, 6), (4, 3, 5), (6, 2, 4))
"""Tokens of internal state, action and observation of each turn."""


def group() -> tuple[tuple[int, ...], list[list[Step]]]:
    """A prompt of 40 tokens and two rollouts of three turns, no token twice the same."""
    ids = iter(range(200))

    def some(size: int) -> tuple[int, ...]:
        return tuple(next(ids) for _ in range(size))

    names = ("state", "action", "observation")
    prompt = some(40)
    rollouts = [
        [Step(**dict(zip(names, map(some, sizes), strict=True))) for sizes in SIZES]
        for _ in range(2)
    ]
    return prompt, rollouts


def model() -> "transformers.PreTrainedModel":
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.Qwen2Config(vocab_size=200, **sizes, **heads, tie_word_embeddings=True)
    return transformers.Qwen2ForCausalLM(config).double()


@pytest.mark.parametrize("row_tokens", [100, 10**6])
@pytest.mark.parametrize("name", sorted({*LAYOUTS["cuda"]} - {"stitched", "turns"}))
def test_layouts_that_are_exact_agree(name, row_tokens):
    found, expected = (
        (policy := model(), make_layout(which, *group(), row_tokens=size))
        for which, size in ((name, row_tokens), ("turns", 10**6))
    )
    told = []
    for policy, layout in (found, expected):
        one_pass(policy, layout)
        index = np.concatenate([part.keywords["row"].index for part in layout.parts])
        logprobs = torch.cat([part(policy) for part in layout.parts]).detach()
        told.append((logprobs[np.argsort(index)], policy.lm_head.weight.grad))
    assert len(found[1].parts) > (row_tokens == 100)
    for one, other in zip(*told, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 1e-5
