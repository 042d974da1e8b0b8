"""The sampler against whole forwards, transformers' generate, and exact distributions."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from oracles.decode import draw_row
from plaudit.models.sampling import sampler as sampler_module
from plaudit.models.sampling.fused import FusedDecoder
from plaudit.models.sampling.hosted import HostedDecoder
from plaudit.models.sampling.kernel_answers import KernelAnswers
from plaudit.models.sampling.sampler import Sampled, Sampler
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from sampled_models import FUSED, HOSTED, KERNELED, PAD, PROMPTS, STOPS, make


def sample(model: Any, sampling: Sampling, *, num_answers: int = 3, **given: Any) -> Sampled:
    given = {"prompts": PROMPTS, "seed": 5, "stop_ids": STOPS, **given}
    prompts, seed = given.pop("prompts"), given.pop("seed")
    sampler = Sampler(model, pad_id=PAD, **given)
    return sampler.generate(prompts, num_answers=num_answers, sampling=sampling, seed=seed)


def ids_of(out: Sampled, row: int) -> list[int]:
    found: list[int] = out.answer[row, : int(out.mask[row].sum())].tolist()
    return found


@pytest.mark.parametrize("name", FUSED)
def test_llama_shaped_models_take_the_fused_path(name: str) -> None:
    assert isinstance(Sampler(make(name), stop_ids=(), pad_id=PAD).decoder, FusedDecoder)


@pytest.mark.parametrize("name", FUSED)
def test_wide_heads_in_float32_step_by_kernels(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        decoder: Any = Sampler(make(name, dtype), stop_ids=(), pad_id=PAD).decoder
        decoder.refresh()
        kerneled = name in KERNELED and dtype == torch.float32
        prefix = decoder.prefill(PROMPTS)
        assert isinstance(decoder.start(prefix, [0, 1], 4), KernelAnswers) == kerneled


@pytest.mark.parametrize("name", HOSTED)
def test_other_models_take_the_hosted_path(name: str) -> None:
    assert isinstance(Sampler(make(name), stop_ids=(), pad_id=PAD).decoder, HostedDecoder)


def test_a_wrapped_projection_takes_the_hosted_path() -> None:
    model = make("llama")
    inner = model.model.layers[1].self_attn.q_proj

    class Adapted(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.5

    adapted = Adapted(inner.in_features, inner.out_features, bias=False)
    adapted.weight = inner.weight
    model.model.layers[1].self_attn.q_proj = adapted
    assert isinstance(Sampler(model, stop_ids=(), pad_id=PAD).decoder, HostedDecoder)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=12),
        Sampling(max_new_tokens=12, temperature=0.6),
        Sampling(max_new_tokens=12, temperature=1.7, top_k=6),
        Sampling(max_new_tokens=12, temperature=2.0, top_p=0.8),
        Sampling(max_new_tokens=12, temperature=3.0, top_k=12, top_p=0.7),
        Sampling(max_new_tokens=12, temperature=1.5, min_p=0.1),
        Sampling(max_new_tokens=12, temperature=3.0, top_k=30, min_p=0.2, top_p=0.9),
        Sampling(max_new_tokens=12, temperature=0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize(("num_answers", "name"), [(1, "llama"), (3, "llama"), (2, "gpt2")])
def test_draws_and_log_probabilities_equal_a_slow_row_at_a_time(
    sampling: Sampling, num_answers: int, name: str
) -> None:
    model = make(name, torch.float64)
    out = sample(model, sampling, num_answers=num_answers)
    for row in range(len(PROMPTS) * num_answers):
        ids, logp, nearness = draw_row(
            model,
            PROMPTS[row // num_answers],
            seed=5,
            row=row,
            stop_ids=set(STOPS),
            **sampling.model_dump(),
        )
        assert nearness > 1e-9, "this case cannot tell right from wrong"
        assert ids_of(out, row) == ids
        torch.testing.assert_close(
            out.logp[row, : len(ids)], torch.tensor(logp, dtype=torch.float64), rtol=0, atol=1e-9
        )
        assert bool(out.terminated[row]) == (ids[-1] in STOPS)


# Qwen3 normalises queries and keys in float32 whatever its own type, so order of sums shows there.
@pytest.mark.parametrize(
    ("dtype", "atol", "names"),
    [
        # The frequencies of dynamic rope depend on how long the sequence is by then.
        (torch.float32, 1e-4, [n for n in (*FUSED, *HOSTED) if n != "dynamic rope"]),
        (torch.float64, 1e-9, [n for n in FUSED if "qwen3" not in n]),
        (torch.float64, 1e-4, [n for n in FUSED if "qwen3" in n]),
    ],
    ids=["float32", "float64", "qwen3"],
)
@pytest.mark.parametrize("num_answers", [1, 3])
def test_log_probabilities_and_hidden_states_equal_one_whole_forward(
    dtype: torch.dtype, atol: float, names: list[str], num_answers: int
) -> None:
    split = 2
    for name in names:
        model = make(name, dtype)
        sampling = Sampling(max_new_tokens=40, temperature=1.3)
        out = sample(model, sampling, num_answers=num_answers, split=split)
        assert out.prompt_hidden is not None
        assert out.answer_hidden is not None
        for row in range(len(out.answer)):
            prompt, ids = PROMPTS[row // num_answers], ids_of(out, row)
            with torch.no_grad():
                whole = model(torch.tensor([prompt + ids]), output_hidden_states=True)
            logits = whole.logits[0, len(prompt) - 1 : -1] / 1.3
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
            near = {"rtol": 1e-4, "atol": atol, "msg": lambda m, name=name: f"{name}: {m}"}
            torch.testing.assert_close(out.logp[row, : len(ids)], expected, **{**near, "rtol": 0})
            hidden = whole.hidden_states[split][0]
            kept = out.prompt_hidden[row // num_answers], out.answer_hidden[row]
            torch.testing.assert_close(kept[0][: len(prompt)], hidden[: len(prompt)], **near)
            torch.testing.assert_close(kept[1][: len(ids)], hidden[len(prompt) :], **near)
            assert not kept[0][len(prompt) :].any()
            assert not kept[1][len(ids) :].any()


def test_hidden_states_can_be_trained_on() -> None:
    """They must not be inference tensors, which autograd refuses to save."""
    out = sample(make("llama"), Sampling(max_new_tokens=3), split=1)
    head = torch.nn.Linear(32, 1)
    head(out.answer_hidden).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", *KERNELED])
def test_greedy_equals_generate(name: str) -> None:
    model = make(name)
    out = sample(model, Sampling(max_new_tokens=30, temperature=0), num_answers=2)
    for i, prompt in enumerate(PROMPTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False,
                max_new_tokens=30,
                eos_token_id=list(STOPS),
                pad_token_id=PAD,
            )[0, len(prompt) :].tolist()
        assert ids_of(out, 2 * i) == ids_of(out, 2 * i + 1) == peer


@pytest.mark.parametrize(
    ("name", "dtype", "atol"),
    [
        ("llama", torch.float64, 1e-9),
        ("gpt2", torch.float64, 1e-9),
        ("wide llama", torch.float32, 1e-4),
    ],
)
def test_waves_other_rows_and_longer_limits_change_nothing(
    name: str, dtype: torch.dtype, atol: float
) -> None:
    model = make(name, dtype)
    sampling = Sampling(max_new_tokens=20, temperature=1.5)
    whole = sample(model, sampling, num_answers=5, split=2)
    assert whole.prompt_hidden is not None
    assert len(set(whole.mask.sum(1).tolist())) > 3, "rows must end at different times"
    for max_rows in (1, 3, 5, 7, 11):
        waves = sample(model, sampling, num_answers=5, split=2, max_rows=max_rows)
        assert torch.equal(waves.answer, whole.answer)
        assert torch.equal(waves.mask, whole.mask)
        torch.testing.assert_close(waves.logp, whole.logp, rtol=0, atol=atol)
        near = {"rtol": 1e-4, "atol": atol}
        torch.testing.assert_close(waves.prompt_hidden, whole.prompt_hidden, **near)
        torch.testing.assert_close(waves.answer_hidden, whole.answer_hidden, **near)
    # The first prompt's rows keep their numbers when the others leave.
    alone = sample(model, sampling, num_answers=5, prompts=PROMPTS[:1])
    for row in range(5):
        assert ids_of(alone, row) == ids_of(whole, row)
    longer = sample(model, Sampling(max_new_tokens=30, temperature=1.5), num_answers=5)
    assert torch.equal(longer.answer[:, :20] * whole.mask, whole.answer * whole.mask)


def test_rows_that_begin_late_and_end_anywhere_are_whole() -> None:
    """Lengths of whole blocks, so that a place too far is another row's."""
    model, sampling = make("wide llama"), Sampling(max_new_tokens=16, temperature=1.5)
    for seed in range(12):
        whole = sample(model, sampling, num_answers=3, split=2, seed=seed, max_rows=12)
        few = sample(model, sampling, num_answers=3, split=2, seed=seed, max_rows=7)
        assert torch.equal(few.answer, whole.answer)
        near = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(few.logp, whole.logp, **near)
        torch.testing.assert_close(few.answer_hidden, whole.answer_hidden, **near)


def test_threads_with_rows_of_their_own_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = make("wide llama"), Sampling(max_new_tokens=20, temperature=1.5)
    whole = sample(model, sampling, num_answers=9, split=2)
    monkeypatch.setattr(sampler_module, "ROWS_A_THREAD", 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for max_rows in (None, 7):
            parted = sample(model, sampling, num_answers=9, split=2, max_rows=max_rows)
            assert torch.get_num_threads() == 3
            assert torch.equal(parted.answer, whole.answer)
            torch.testing.assert_close(parted.logp, whole.logp, rtol=0, atol=1e-4)
            torch.testing.assert_close(
                parted.answer_hidden, whole.answer_hidden, rtol=1e-4, atol=1e-4
            )
            assert not torch.is_inference(parted.logp)
    finally:
        torch.set_num_threads(before)


def test_one_threads_fault_stops_the_others_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "ROWS_A_THREAD", 4)
    drawn, steps = sampler_module.draw, []

    def faulty(logits: Any, u: Any, sampling: Any) -> Any:
        steps.append(len(logits))
        if len(steps) == 10:
            raise FloatingPointError("nothing to draw")
        return drawn(logits, u, sampling)

    monkeypatch.setattr(sampler_module, "draw", faulty)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(FloatingPointError, match="nothing to draw"):
            sample(make("wide llama"), Sampling(max_new_tokens=60), num_answers=2, stop_ids=())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(steps) < 2 * 60


def test_seeds_and_rows_draw_differently() -> None:
    model = make("llama")
    sampling = Sampling(max_new_tokens=10, temperature=3.0)
    first = sample(model, sampling, num_answers=4, stop_ids=())
    again = sample(model, sampling, num_answers=4, stop_ids=())
    other = sample(model, sampling, num_answers=4, stop_ids=(), seed=6)
    assert torch.equal(first.answer, again.answer)
    assert torch.equal(first.logp, again.logp)
    assert not torch.equal(first.answer, other.answer)
    assert len({tuple(row) for row in first.answer.tolist()}) == len(first.answer)


def test_stop_tokens_end_rows_and_stay_in_the_mask() -> None:
    out = sample(make("llama"), Sampling(max_new_tokens=25, temperature=2.0), num_answers=8)
    lengths = out.mask.sum(1)
    assert int(lengths.max()) == out.answer.shape[1]
    assert out.terminated.any()
    assert not out.terminated.all()
    for row, n in enumerate(lengths.tolist()):
        ids = out.answer[row].tolist()
        assert out.mask[row].tolist() == [t < n for t in range(len(ids))]
        assert all(i not in STOPS for i in ids[: n - 1])
        assert bool(out.terminated[row]) == (ids[n - 1] in STOPS)
        assert out.terminated[row] or n == 25
        assert ids[n:] == [PAD] * (len(ids) - n)
        assert not out.logp[row, n:].any()


def test_weights_changed_in_place_are_seen() -> None:
    model = make("llama")
    sampler = Sampler(model, stop_ids=STOPS, pad_id=PAD, split=2)
    sampling = Sampling(max_new_tokens=8)

    def drawn() -> Sampled:
        return sampler.generate(PROMPTS, num_answers=2, sampling=sampling, seed=3)

    before = drawn()
    with torch.no_grad():
        for parameter in model.model.layers[2:].parameters():
            parameter.mul_(1.3)
        model.lm_head.weight.data.mul_(0.7)  # a write that bumps no version counter
    after = drawn()
    fresh = Sampler(model, stop_ids=STOPS, pad_id=PAD, split=2).generate(
        PROMPTS, num_answers=2, sampling=sampling, seed=3
    )
    assert torch.equal(after.answer, fresh.answer)
    assert torch.equal(after.logp, fresh.logp)
    assert not torch.equal(before.logp[:, 0], after.logp[:, 0])


def test_training_mode_is_kept_and_dropout_is_off() -> None:
    model = make("gpt2")
    model.config.resid_pdrop = 0.5
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    still = sample(model, Sampling(max_new_tokens=6))
    model.train()
    moving = sample(model, Sampling(max_new_tokens=6))
    assert model.training
    assert torch.equal(still.logp, moving.logp)


def test_half_precision_is_as_near_the_exact_model_as_its_own_forward() -> None:
    exact, half = make("llama", torch.float64), make("llama", torch.bfloat16)
    exact.load_state_dict({k: v.double() for k, v in half.state_dict().items()})
    out = sample(half, Sampling(max_new_tokens=20), num_answers=4)
    ours, theirs = [], []
    for row in range(len(out.answer)):
        prompt, ids = PROMPTS[row // 4], ids_of(out, row)
        token = torch.tensor([prompt + ids])
        index = torch.tensor(ids)[:, None]
        with torch.no_grad():
            logp = [
                m(token).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1).gather(-1, index)
                for m in (exact, half)
            ]
        theirs += (logp[1] - logp[0]).abs()[:, 0].tolist()
        ours += (out.logp[row, : len(ids)] - logp[0][:, 0]).abs().tolist()
    assert sum(ours) < 1.3 * sum(theirs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": [[1], [2] * 90]}, r"prompt 1 has 90 tokens .* context of 96"),
        ({"prompts": [[1], []]}, "prompt 1 has no tokens"),
        ({"prompts": [[1, 40]]}, "outside 0 … 39"),
        ({"prompts": []}, "no prompts"),
        ({"num_answers": 0}, "num_answers is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"split": 4}, "split is 4, but the model has 4 layers"),
        ({"max_rows": 0}, "max_rows is 0"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample(make("llama"), Sampling(max_new_tokens=8), **given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_k": -2},
        {"min_p": 1.5},
        {"min_p": -0.1},
    ],
    ids=str,
)
def test_sampling_refuses_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**{"max_new_tokens": 4, **wrong})
