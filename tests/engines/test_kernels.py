"""Sequences of many lengths, side by side: each token goes and comes back, padding stays apart."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from mem1.engines.kernels import attend_part, attend_plainly, padded  # noqa: E402

STARTS, SIZES = np.array([0, 20, 22, 40]), np.array([20, 2, 18, 1])


def test_sequences_of_like_length_are_one_group():
    assert [group.shape for group in padded(STARTS, SIZES)] == [(2, 32), (2, 16)]
    assert [group.shape for group in padded(np.array([0]), np.array([1000]))] == [(1, 1024)]
    assert padded(STARTS[:0], SIZES[:0]) == []


def test_what_lies_side_by_side_is_padded_and_comes_back():
    tokens = torch.arange(1.0, 42.0)[None, None, :, None]
    back = torch.zeros_like(tokens)
    long, short = padded(STARTS, SIZES)
    assert short.beside(tokens)[:, 0, :3, 0].tolist() == [[21, 22, 22], [41, 41, 41]]
    assert short.beside(tokens, blank=True)[:, 0, :3, 0].tolist() == [[21, 22, 0], [41, 0, 0]]
    for group in (long, short):
        group.put_back(group.beside(tokens), into=back)
    assert torch.equal(back, tokens)


def test_attention_side_by_side_is_that_of_each_alone():
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, n, 41, 8, generator=make) for n in (4, 2, 2))
    out = torch.empty_like(query)
    for group in padded(STARTS, SIZES):
        apart = [group.beside(tensor) for tensor in (query, key, value)]
        group.put_back(attend_part(*apart, causal=True, scale=None)[0], into=out)
    for start, size in zip(STARTS, SIZES, strict=True):
        own = [tensor[:, :, start : start + size] for tensor in (query, key, value)]
        alone = scaled_dot_product_attention(*own, is_causal=True, enable_gqa=True)
        assert (out[:, :, start : start + size] - alone).abs().max() < 1e-6


def test_what_is_added_to_scores_counts_for_all_heads_that_share_keys():
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, *n, 8, generator=make) for n in ((4, 3), (2, 5), (2, 5)))
    bias = torch.where(torch.rand(2, 1, 3, 5, generator=make) < 0.5, -torch.inf, 0.0)
    bias[..., 0] = 0
    out, lse = attend_part(query, key, value, bias=bias, scale=None)
    alike = [x.repeat_interleave(2, 1) for x in (key, value)]
    whole = scaled_dot_product_attention(query, *alike, attn_mask=bias)
    plain, plain_lse = attend_plainly(query, *alike, causal=False, bias=bias, scale=None)
    assert (out - whole).abs().max() < 1e-6
    assert (plain - whole).abs().max() < 1e-6
    assert (lse - plain_lse).abs().max() < 1e-6
