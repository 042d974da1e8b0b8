"""Every family of models by the whole job: right to the numbers of plain `transformers`, or refused.

The suite runs the shapes below, one of each kind of fault that a trainer can make; `make test-all`
runs the whole zoo, each shape with its top layers trained and with all of them.
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from family_job import Verdict, judged
from model_zoo import LAYERS, SHAPES, model_folder
from oracles.lm_numbers import (
    Drawing,
    answer_entropy,
    answer_logprobs,
    kept_tokens,
    open_causal,
)

TOP = 2
CHECKED = {
    ("llama", LAYERS),  # the reference must stay where it was
    ("llama-tied", LAYERS),  # and here its embedding too, which is the output layer
    ("mistral-window", TOP),  # a window that no layer_types say
    ("gemma2-caps", TOP),  # windows in every other layer, caps
    ("gemma3", LAYERS),
    ("cohere", TOP),  # scaled logits; no standard classifier
    ("granite", LAYERS),
    ("opt-projected", LAYERS),  # embeddings of another width
    ("bloom", LAYERS),  # positions counted by the mask
    ("mamba", LAYERS),  # no attention
}
REFUSED = {
    "qwen3-next", "recurrent-gemma", "mamba", "mamba2", "jamba", "bamba", "minimax", "rwkv", "llama4",
}  # fmt: skip
"""Families that are refused however much is trained."""

UNCUT = {
    "phi", "gpt2", "gpt-neo", "gpt-neox", "gptj", "codegen", "opt", "opt-projected", "bloom", "mpt",
    "falcon", "falcon-alibi", "persimmon",
}  # fmt: skip
"""Families that are trained in all their layers only. No other may be refused, so that refusing
everything cannot pass for being right."""

EVERY = [
    pytest.param(
        name,
        layers,
        marks=() if (name, layers) in CHECKED else pytest.mark.nightly,
        id=f"{name}-{'all' if layers == LAYERS else 'top'}",
    )
    for name in SHAPES
    for layers in (TOP, LAYERS)
]
PECULIAR = [
    pytest.param(
        name,
        marks=() if any(name == checked for checked, _ in CHECKED) else pytest.mark.nightly,
    )
    for name, shape in SHAPES.items()
    if shape.without
]
WORDS = "The cart keeps its pole upright while the player writes a sentence about a great river."


def assert_right(verdict: Verdict) -> None:
    assert not verdict.faults, "; ".join(verdict.faults)
    if verdict.outcome == "refused":
        assert verdict.said.startswith("plaudit: "), verdict.said
        assert len(verdict.said.splitlines()) == 1, verdict.said


@pytest.mark.parametrize(("name", "layers"), EVERY)
def test_the_job_gives_the_numbers_of_transformers_or_is_refused(tmp_path, name, layers) -> None:
    verdict = judged(name, tmp_path, layers=layers)
    assert_right(verdict)
    is_refused = name in REFUSED or (name in UNCUT and layers < LAYERS)
    assert verdict.outcome == ("refused" if is_refused else "done")


def test_a_policy_of_adapters_gives_the_numbers_of_transformers(tmp_path) -> None:
    flags = ("--lora-rank", "2", "--ppo.lr", "5e-2")
    verdict = judged("qwen2", tmp_path, layers=TOP, flags=flags)
    assert_right(verdict)
    assert verdict.outcome == "done"


def test_filtered_draws_give_the_numbers_of_transformers(tmp_path) -> None:
    drawing = Drawing(temperature=0.9, top_k=40, min_p=0.01, top_p=0.9)
    verdict = judged("llama3", tmp_path, layers=TOP, drawing=drawing)
    assert_right(verdict)
    assert verdict.outcome == "done"


# --- the judge and the zoo themselves


def test_the_oracle_keeps_the_tokens_that_are_kept_by_hand() -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=torch.float64).log()
    kept = lambda **options: kept_tokens(logits, Drawing(**options))[0].tolist()  # noqa: E731
    assert kept() == [True] * 4
    assert kept(top_k=2) == [False, True, False, True]
    assert kept(top_p=0.4) == [False, True, False, False]
    assert kept(top_p=0.81) == [True, True, False, True]  # 0.5 + 0.3 do not reach it
    # Of the two tokens that top-k leaves, the first holds 5/8 of the mass.
    assert kept(top_k=2, top_p=0.6) == [False, True, False, False]
    assert kept(min_p=0.31) == [False, True, False, True]
    assert kept(min_p=0.29) == [True, True, False, True]
    # Of 0.15, 0.5 and 0.3 the last two hold 0.84.
    assert kept(min_p=0.29, top_p=0.83) == [False, True, False, True]
    assert kept(temperature=0.5, min_p=0.1) == [False, True, False, True]  # squares of the ratios
    assert kept(temperature=0.5, top_p=0.6) == [False, True, False, False]  # 0.25 of 0.365


class Fixed(torch.nn.Module):
    """Always the same four probabilities, whatever was read."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:
        row = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
        return type("Output", (), {"logits": row.expand(1, input_ids.shape[1], 4)})


def test_the_oracle_scores_by_hand() -> None:
    logp = answer_logprobs(Fixed(), [0, 0], [1, 3])
    assert logp.tolist() == pytest.approx([math.log(1 / 4), math.log(1 / 8)])
    assert answer_entropy(Fixed(), [0], [2]).tolist() == pytest.approx([1.75 * math.log(2)])
    # At temperature ½ the shares are 16 : 4 : 1 : 1 of 22; of two tokens 16 : 4 of 20.
    warm = answer_logprobs(Fixed(), [0], [1], Drawing(temperature=0.5))
    assert warm.tolist() == pytest.approx([math.log(4 / 22)])
    few = answer_logprobs(Fixed(), [0], [1], Drawing(temperature=0.5, top_k=2))
    assert few.tolist() == pytest.approx([math.log(4 / 20)])


@pytest.mark.parametrize("name", PECULIAR)
def test_what_is_peculiar_to_a_shape_moves_its_numbers(tmp_path, name) -> None:
    folder = model_folder(name, tmp_path / "model")
    text = list(WORDS.encode())[:60]
    with_it = answer_logprobs(open_causal(folder), text[:20], text[20:])
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(SHAPES[name].without)))
    without = answer_logprobs(open_causal(folder), text[:20], text[20:])
    assert float((with_it - without).abs().mean()) > 0.1
