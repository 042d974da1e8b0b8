"""Chunked log-probabilities: values, gradients and memory against the plain computation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oracles import distribution
from plaudit import ops

SAMPLING = [
    {},
    {"temperature": 0.7},
    {"top_k": 3},
    {"top_p": 0.8, "temperature": 1.3},
    {"top_k": 6, "top_p": 0.7},
    {"min_p": 0.2, "temperature": 1.3},
    {"top_k": 8, "min_p": 0.05, "top_p": 0.9},
]
CHUNKS = [1, 3, 7, 100]


def case(*, num=7, hidden=5, vocabulary=11, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    h = torch.randn(num, hidden, generator=g, dtype=torch.float64).to(dtype)
    w = torch.randn(vocabulary, hidden, generator=g, dtype=torch.float64).to(dtype)
    b = torch.randn(vocabulary, generator=g, dtype=torch.float64).to(dtype)
    token = torch.randint(0, vocabulary, (num,), generator=g)
    return h.requires_grad_(), w.requires_grad_(), b.requires_grad_(), token


def plain(h, w, token, b=None, **sampling):
    """With all logits at once, differentiated by autograd."""
    logits = h @ w.T if b is None else h @ w.T + b
    z = ops.filtered_logits(logits, token, **sampling)
    return z.log_softmax(-1).gather(-1, token[:, None]).squeeze(-1), ops.entropy(z)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_values_agree_with_loops_over_single_tokens(sampling):
    h, w, b, token = case()
    logp, entropy = ops.token_logprobs(h, w, token, bias=b, chunk_size=3, **sampling)
    full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | sampling
    for n, v in enumerate(token.tolist()):
        logits = [
            math.fsum(x * y for x, y in zip(h[n].tolist(), row, strict=True)) + c
            for row, c in zip(w.tolist(), b.tolist(), strict=True)
        ]
        want = distribution.token_logprob(logits, v, **full)
        assert (logp[n].item(), entropy[n].item()) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_agree_with_the_plain_computation(sampling, chunk_size, with_bias):
    h, w, b, token = case()
    inputs = (h, w, b) if with_bias else (h, w)
    bias = b if with_bias else None
    weight_of = torch.linspace(-1, 1, len(token), dtype=torch.float64)
    chunked = ops.token_logprobs(h, w, token, bias=bias, chunk_size=chunk_size, **sampling)
    whole = plain(h, w, token, bias, **sampling)
    for got, want in zip(chunked, whole, strict=True):
        torch.testing.assert_close(got, want)
    for loss in (
        lambda logp, _: (logp * weight_of).sum(),
        lambda _, entropy: (entropy**2).sum(),
        lambda logp, entropy: (logp * entropy * weight_of).sum(),
    ):
        got = torch.autograd.grad(loss(*chunked), inputs, retain_graph=True)
        want = torch.autograd.grad(loss(*whole), inputs, retain_graph=True)
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("learning", ["hidden", "weight", "bias", "hidden+weight"])
def test_a_frozen_part_gets_no_gradient_and_changes_none(sampling, learning):
    h, w, b, token = case()
    parts = {"hidden": h, "weight": w, "bias": b}
    for name, x in parts.items():
        x.requires_grad_(name in learning.split("+"))
    chosen = [x for x in parts.values() if x.requires_grad]
    weight_of = torch.linspace(-1, 1, len(token), dtype=torch.float64)
    for output in (0, 1):
        got = ops.token_logprobs(h, w, token, bias=b, chunk_size=2, **sampling)[output]
        want = plain(h, w, token, b, **sampling)[output]
        for x, y in zip(
            torch.autograd.grad((got * weight_of).sum(), chosen),
            torch.autograd.grad((want * weight_of).sum(), chosen),
            strict=True,
        ):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("chunk_size", [2, 100])
def test_gradients_match_finite_differences(chunk_size):
    h, w, b, token = case(num=3, hidden=2, vocabulary=4)
    assert torch.autograd.gradcheck(
        lambda x, y, z: ops.token_logprobs(
            x, y, token, bias=z, temperature=1.7, chunk_size=chunk_size
        ),
        (h, w, b),
    )
    frozen = w.detach()
    assert torch.autograd.gradcheck(
        lambda x: ops.token_logprobs(x, frozen, token, chunk_size=chunk_size), h
    )


class Largest(TorchDispatchMode):
    """Notes the most elements that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.mark.parametrize("sampling", [{}, {"top_k": 5, "top_p": 0.9}, {"min_p": 0.1}])
def test_no_array_is_larger_than_a_chunk_of_logits(sampling):
    num, hidden, vocabulary, chunk = 96, 4, 331, 8
    h, w, _, token = case(num=num, hidden=hidden, vocabulary=vocabulary)
    with Largest() as chunked:
        logp, entropy = ops.token_logprobs(h, w, token, chunk_size=chunk, **sampling)
        (logp + entropy).sum().backward()
    assert 0.9 * chunk * vocabulary < chunked.numel <= chunk * vocabulary
    with Largest() as whole:
        plain(h, w, token, **sampling)
    assert whole.numel == num * vocabulary  # the measure sees what it should


def test_unless_told_no_more_than_two_million_logits_exist_at_once():
    h, w, _, token = case(num=600, hidden=2, vocabulary=8192, dtype=torch.float32)
    with Largest() as largest:
        ops.token_logprobs(h, w, token)[0].sum().backward()
    assert 10**6 < largest.numel <= 2 * 2**20 < 600 * 8192


@pytest.mark.parametrize("chunk_size", [1, 40, 500, None])
@pytest.mark.parametrize("frozen", [True, False])
def test_more_tokens_than_a_tile_has_rows(chunk_size, frozen):
    h, w, b, token = case(num=1100, hidden=3, vocabulary=37)
    inputs = (h,) if frozen else (h, w, b)
    if frozen:
        w, b = w.detach(), b.detach()
    weight_of = torch.linspace(-1, 1, len(token), dtype=torch.float64)
    got = ops.token_logprobs(h, w, token, bias=b, temperature=0.7, chunk_size=chunk_size)
    want = plain(h, w, token, b, temperature=0.7)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y)
    for loss in (lambda logp, _: logp @ weight_of, lambda logp, entropy: (logp * entropy).sum()):
        for x, y in zip(
            torch.autograd.grad(loss(*got), inputs, retain_graph=True),
            torch.autograd.grad(loss(*want), inputs, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("frozen", [True, False])
def test_float32_gradients_are_exact_to_a_few_roundings(frozen):
    # The drawn token's own part of a logit's gradient is near 1, the others' near 1/V: summed in
    # one product over V words, their rounding adds up to ten times this.
    g = torch.Generator().manual_seed(0)
    h, token = torch.randn(64, 128, generator=g), torch.randint(20_000, (64,), generator=g)
    w, weight_of = torch.randn(20_000, 128, generator=g) / 128**0.5, torch.randn(64, generator=g)
    found = []
    for make in (ops.token_logprobs, plain):
        dtype = torch.float32 if make is ops.token_logprobs else torch.float64
        inputs = [x.to(dtype).requires_grad_(x is h or not frozen) for x in (h, w)]
        loss = (make(*inputs, token)[0] * weight_of.to(dtype)).sum()
        found.append(torch.autograd.grad(loss, [x for x in inputs if x.requires_grad]))
    for got, want in zip(*found, strict=True):
        assert (got - want).abs().max() <= 2e-7 * want.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_token_drawn_often_is_summed_before_it_is_rounded(dtype):
    # Narrow sums of 700 equal addends stall: 256 + 1 is 256 in bfloat16.
    h, w = torch.ones(700, 1, dtype=dtype), torch.zeros(5, 1, dtype=dtype, requires_grad=True)
    ops.token_logprobs(h, w, torch.zeros(700, dtype=torch.long))[0].sum().backward()
    want = torch.tensor([[560.0], [-140.0], [-140.0], [-140.0], [-140.0]])
    torch.testing.assert_close(w.grad.float(), want, rtol=torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("order", [(-1e4, 0.0, 1e4), (1e4, 0.0, -1e4), (0.0, 1e4, -1e4)])
def test_blocks_of_words_far_apart_are_joined(order):
    hidden, weight = torch.ones(3, 1), torch.tensor(order)[:, None]
    token = torch.arange(3)
    logp, entropy = ops.token_logprobs(
        hidden.requires_grad_(), weight.requires_grad_(), token, chunk_size=1
    )
    assert logp.tolist() == [z - 1e4 for z in order]
    assert entropy.tolist() == [0.0] * 3
    (logp + entropy).sum().backward()
    # d logp / d hidden = weight[token] − weight of the only likely word
    assert hidden.grad[:, 0].tolist() == [z - 1e4 for z in order]


def test_a_frozen_head_makes_the_logits_once():
    """The gradient of hidden alone is ready after the forward pass."""
    h, w, _, token = case(num=96, hidden=4, vocabulary=331)
    logp, _ = ops.token_logprobs(h, w.detach(), token, chunk_size=8)
    with Largest() as backward:
        logp.sum().backward()
    assert backward.numel == h.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_dtypes_return_float32_near_the_exact_values(dtype):
    h, w, b, token = case(dtype=dtype)
    logp, entropy = ops.token_logprobs(h, w, token, bias=b, chunk_size=3)
    (logp.sum() + entropy.sum()).backward()
    assert logp.dtype == entropy.dtype == torch.float32
    wide = [x.detach().double().requires_grad_() for x in (h, w, b)]
    want = plain(wide[0], wide[1], token, wide[2])
    sum(x.sum() for x in want).backward()
    # Logits near 8 are rounded to eps · 8 before the exponential.
    tolerance = {"rtol": 0.0, "atol": 20 * torch.finfo(dtype).eps}
    torch.testing.assert_close(logp.double(), want[0], **tolerance)
    torch.testing.assert_close(entropy.double(), want[1], **tolerance)
    for x, y in zip((h, w, b), wide, strict=True):
        assert x.grad.dtype == dtype
        torch.testing.assert_close(
            x.grad.double(), y.grad, **tolerance | {"rtol": tolerance["atol"]}
        )


def test_an_improbable_token_keeps_its_log_probability():
    # Logits 0 and −500 in float32: π of the second underflows, its logarithm must not.
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [-500.0]])
    logp, entropy = ops.token_logprobs(hidden, weight, torch.tensor([1]))
    assert logp.item() == -500.0
    assert entropy.item() == 0.0


def test_a_drawn_token_that_left_the_kept_set_stays_finite():
    # Only token 0 is kept by top_k = 1; token 1 is scored against {0, 1}.
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[math.log(3)], [0.0], [0.0]])
    logp, entropy = ops.token_logprobs(hidden, weight, torch.tensor([1]), top_k=1)
    assert logp.item() == pytest.approx(math.log(0.25))
    assert entropy.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_no_tokens_is_no_error():
    h, w, b, _ = case(num=0)
    logp, entropy = ops.token_logprobs(h, w, torch.zeros(0, dtype=torch.long), bias=b)
    (logp.sum() + entropy.sum()).backward()
    assert logp.shape == entropy.shape == (0,)
    assert (w.grad == 0).all()


@pytest.mark.parametrize("bad", [-1, 11])
def test_a_token_outside_the_vocabulary_is_refused(bad):
    h, w, _, token = case()
    token[3] = bad
    with pytest.raises(ValueError, match=r"must lie in \[0, 11\)"):
        ops.token_logprobs(h, w, token)


def test_chunks_and_temperatures_are_checked():
    h, w, _, token = case()
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        ops.token_logprobs(h, w, token, chunk_size=0)
    with pytest.raises(ValueError, match="temperature must be a positive"):
        ops.token_logprobs(h, w, token, temperature=0.0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_lengths_must_agree():
    h, w, _, token = case()
    with pytest.raises(ValueError, match="7 hidden states were given for 6 tokens"):
        ops.token_logprobs(h, w, token[:6])
