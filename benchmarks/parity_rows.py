"""The rows of `benchmarks/parity.py`: what each side is told, what must agree, and what is known not to.

A row's verdict is one of
    equal       loss, norm of the gradient and the gradient itself agree
    gradient    the gradient agrees, the loss is another number
    differs     definitions differ, and the numbers must show it
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Keys = dict[str, Any]
Verdict = Literal["equal", "gradient", "differs"]

EOS, PAD, VOCABULARY = 0, 1, 48
NUM_GROUPS, PER_GROUP, MAX_NEW = 3, 4, 12


@dataclass(frozen=True)
class Row:
    """One loss on both sides: its name, the kind of work, definitions in words, and the keys."""

    name: str
    kind: str
    ours_says: str
    trl_says: str
    expected: Verdict
    ours: Keys = field(default_factory=dict)
    trl: Keys = field(default_factory=dict)
    off_policy: bool = False


def task() -> Keys:
    """Six prompts with two answers each, three of them with four drawn answers, and rewards."""
    draw = random.Random(3)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high))]

    prompts = [ids(3, 9) for _ in range(6)]
    num = NUM_GROUPS * PER_GROUP
    answers = [[*ids(2, MAX_NEW - 2), EOS] for _ in range(num)]
    answers[5] = [draw.randrange(2, VOCABULARY) for _ in range(MAX_NEW)]  # cut by the limit
    return {
        "prompts": prompts,
        "chosen": [[*ids(2, 14), EOS] for _ in prompts],
        "rejected": [[*ids(2, 14), EOS] for _ in prompts],
        "is_good": [True, False, True, True, False, False],
        "answers": answers,
        "rewards": [[round(draw.gauss(0.0, s), 2) for _ in range(num)] for s in (1.0, 0.1)],
        "num_groups": NUM_GROUPS,
        "max_new_tokens": MAX_NEW,
        "eos": EOS,
    }


def rows() -> Iterator[Row]:
    """All of them, in the order of the table."""
    yield from _supervised()
    yield from _pairs()
    yield from _labels()
    yield from _groups()
    yield from _rloo()


def _supervised() -> Iterator[Row]:
    tokens = "−Σ log π / tokens"
    yield Row("SFT", "sft", tokens, "the same", "equal")
    yield Row(
        "SFT, 3 micro-batches", "sft", tokens, "tokens of all micro-batches", "equal",
        trl={"micro": 3},
    )  # fmt: skip
    score = "−log σ(s_w − s_l), s at the last token"
    yield Row("reward model", "reward", score, "the same", "equal", {"centring_coef": 0.0})
    yield Row(
        "reward model, centred", "reward", "+ 0.01 (s_w + s_l)²", "the same", "equal",
        {"centring_coef": 0.01}, {"config": {"center_rewards_coefficient": 0.01}},
    )  # fmt: skip
    yield Row(
        "reward model, pad = eos", "reward", score, "s at the last token that is no padding",
        "differs", {"centring_coef": 0.0}, {"pad_is_eos": True},
    )  # fmt: skip


def _dpo(
    theirs: str, ours: str, expected: Verdict, ours_says: str, trl_says: str = "the same",
    *, name: str = "", ours_keys: Keys | None = None, trl_keys: Keys | None = None, micro: int = 1,
) -> Row:  # fmt: skip
    mine = {"loss": ours, "beta": 0.3, **(ours_keys or {})}
    config = {"loss_type": [theirs], "beta": 0.3, "max_length": None, **(trl_keys or {})}
    return Row(
        f"DPO {name or theirs}", "dpo", f"`{ours}`: {ours_says}", trl_says, expected, mine,
        {"config": config, "micro": micro},
    )  # fmt: skip


def _pairs() -> Iterator[Row]:
    few, keys = {"smoothing": 0.1}, {"label_smoothing": 0.1}
    yield _dpo("sigmoid", "dpo", "equal", "−log σ(h)")
    yield _dpo("hinge", "hinge", "equal", "max(0, 1 − h)")
    yield _dpo("ipo", "ipo_mean", "equal", "averages over tokens")
    yield _dpo(
        "ipo", "ipo", "differs", "sums over tokens", "averages over tokens", name="ipo, of sums"
    )
    yield _dpo("robust", "robust", "equal", "ε = 0.1", ours_keys=few, trl_keys=keys)
    yield _dpo("exo_pair", "exo", "equal", "ε = 0.1", ours_keys=few, trl_keys=keys)
    yield _dpo("nca_pair", "nca", "equal", "2402.05369")
    yield _dpo("sppo_hard", "sppo", "equal", "2405.00675")
    yield _dpo("apo_zero", "apo_zero", "equal", "1 − σ(u_w) + σ(u_l)")
    yield _dpo("apo_down", "apo_down", "equal", "σ(u_w) + 1 − σ(h)")
    yield _dpo("discopop", "discopop", "equal", "τ = 0.05")
    yield _dpo("sigmoid_norm", "dpo_mean", "equal", "averages over tokens")
    yield _dpo(
        "bco_pair", "bco", "equal", "δ held at 0", "no δ", name="bco_pair, δ = 0",
        ours_keys={"delta": 0.0},
    )  # fmt: skip
    yield _dpo("bco_pair", "bco", "differs", "δ the mean reward", "no δ")
    yield _dpo(
        "aot", "cdpo", "equal", "ε = 0.1", "`aot` of one pair a micro-batch: nothing to sort",
        name="smoothed (cdpo)", ours_keys=few, trl_keys=keys, micro=6,
    )  # fmt: skip
    yield _dpo(
        "sigmoid", "cdpo", "differs", "ε = 0.1", "`label_smoothing` is not read",
        name="sigmoid with label_smoothing", ours_keys=few, trl_keys=keys,
    )  # fmt: skip
    both = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}
    nll = "+ −log π per chosen token"
    for micro, expected, says in (
        (1, "equal", "the same"),
        (3, "differs", "the tokens of each micro-batch divide its share"),
    ):
        yield _dpo(
            "sigmoid", "dpo", expected, nll, says, ours_keys={"nll_coef": 1.0},  # type: ignore[arg-type]
            trl_keys=both, micro=micro, name=f"sigmoid + sft, {micro} micro-batch{'es' * (micro > 1)}",
        )  # fmt: skip


def _labels() -> Iterator[Row]:
    z = "z of the whole batch"
    base = {"beta": 0.3, "max_length": None}
    ours = {"loss": "kto", "beta": 0.3}
    yield Row("KTO", "kto", z, "the same", "equal", ours, {"config": base})
    yield Row(
        "KTO, λ 1.5 and 0.75", "kto", z, "the same", "equal",
        {**ours, "good_weight": 1.5, "bad_weight": 0.75},
        {"config": {**base, "desirable_weight": 1.5, "undesirable_weight": 0.75}},
    )  # fmt: skip
    yield Row(
        "KTO, 3 micro-batches", "kto", z, "z of each micro-batch", "differs", ours,
        {"config": base, "micro": 3},
    )  # fmt: skip


def _grpo(
    name: str, expected: Verdict, ours_says: str, trl_says: str = "the same", *,
    ours: Keys, trl: Keys, off_policy: bool = True, weights: list[float] | None = None,
    micro: int = 1,
) -> Row:  # fmt: skip
    also = {"weights": weights} if weights else {}
    return Row(
        f"GRPO {name}", "grpo", ours_says, trl_says, expected,
        {"config": {"denominator": "answer", **ours}, **also},
        {"config": {"loss_type": "grpo", "beta": 0.0, **trl}, "micro": micro, **also},
        off_policy,
    )  # fmt: skip


def _groups() -> Iterator[Row]:
    tokens: Keys = {"denominator": "tokens"}
    dr = {"denominator": "constant", "scale": "none"}
    high = {"clip_high": 0.28}
    their_dr = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    for off in (False, True):
        yield _grpo("grpo", "equal", "mean of answers' means", ours={}, trl={}, off_policy=off)
        yield _grpo("dr_grpo", "equal", "Σ / (B · limit)", ours=dr, trl=their_dr, off_policy=off)
        yield _grpo(
            "dapo", "equal", "Σ / tokens, clip 0.2 and 0.28", ours={**tokens, **high},
            trl={"loss_type": "dapo", "epsilon_high": 0.28}, off_policy=off,
        )  # fmt: skip
        yield _grpo(
            "gspo", "equal", "ratio of an answer, clip 0.02 and 0.03",
            ours={"loss": "gspo", "clip": 0.02, "clip_high": 0.03},
            trl={"importance_sampling_level": "sequence", "epsilon": 0.02, "epsilon_high": 0.03},
            off_policy=off,
        )  # fmt: skip
        yield _grpo(
            "cispo, cap 1.2", "equal", "sg(min(ρ, 1.2)) A log π",
            ours={"loss": "cispo", "ratio_cap": 1.2, **tokens},
            trl={"loss_type": "cispo", "epsilon_high": 1.2}, off_policy=off,
        )  # fmt: skip
        yield _grpo(
            "cispo, defaults", "differs", "cap 5", "cap 0.2: that of `epsilon`",
            ours={"loss": "cispo", **tokens}, trl={"loss_type": "cispo"}, off_policy=off,
        )  # fmt: skip
        yield _grpo(
            "sapo", "equal", "τ 1 and 1.05", ours={"loss": "sapo"}, trl={"loss_type": "sapo"},
            off_policy=off,
        )  # fmt: skip
    yield _grpo(
        "bnpo", "equal", "Σ / tokens", ours=tokens, trl={"loss_type": "bnpo"},
    )  # fmt: skip
    yield _grpo(
        "bnpo, 3 micro-batches", "differs", "tokens of the batch", "tokens of each micro-batch",
        ours=tokens, trl={"loss_type": "bnpo"}, micro=3,
    )  # fmt: skip
    yield _grpo(
        "dapo, 3 micro-batches", "equal", "tokens of the batch", ours=tokens,
        trl={"loss_type": "dapo"}, micro=3,
    )  # fmt: skip
    yield _grpo(
        "std of the batch", "equal", "std of all scores", ours={"scale": "batch"},
        trl={"scale_rewards": "batch"},
    )  # fmt: skip
    two = [1.0, 2.0]
    yield _grpo("two rewards", "equal", "summed, then standardised", ours={}, trl={}, weights=two)
    yield _grpo(
        "two rewards apart", "differs", "then by the population's std", "by the sample's + 1e-4",
        ours={"combine": "apart"}, trl={"multi_objective_aggregation": "normalize_then_sum"},
        weights=two,
    )  # fmt: skip
    yield _grpo(
        "entropy bonus, dapo", "equal", "Σ H / tokens", ours={**tokens, "entropy_coef": 0.1},
        trl={"loss_type": "dapo", "entropy_coef": 0.1},
    )  # fmt: skip
    yield _grpo(
        "entropy bonus, grpo", "differs", "mean of answers' means", "mean of tokens",
        ours={"entropy_coef": 0.1}, trl={"entropy_coef": 0.1},
    )  # fmt: skip
    cut, their_cut = {"truncated": "mask"}, {"mask_truncated_completions": True}
    yield _grpo(
        "cut answers masked, dapo", "equal", "they are in no denominator",
        ours={**tokens, **cut}, trl={"loss_type": "dapo", **their_cut},
    )  # fmt: skip
    yield _grpo(
        "cut answers masked, grpo", "differs", "they are in no denominator",
        "they are among the answers", ours=cut, trl=their_cut,
    )  # fmt: skip
    kl = {"kl_coef": 0.1}
    ratio, plain = {"beta": 0.1}, {"beta": 0.1, "use_bias_correction_kl": False}
    yield _grpo("KL", "gradient", "ρ k2", "ρ k3", ours=kl, trl=ratio, off_policy=False)
    yield _grpo("KL", "gradient", "ρ k2", "ρ k3", ours=kl, trl=ratio)
    yield _grpo("KL, no correction", "differs", "ρ k2", "k3", ours=kl, trl=plain, off_policy=False)


def _rloo() -> Iterator[Row]:
    says = "Π ρ, clip 0.2"
    yield Row(
        "RLOO, KL in the score", "rloo", f"{says}, k1 of the answer", "the same", "equal",
        {"config": {"kl_coef": 0.1}}, {"config": {"beta": 0.1}},
    )  # fmt: skip
    yield Row(
        "RLOO", "rloo", says, "the same", "equal", {"config": {"kl_coef": 0.0}},
        {"config": {"beta": 0.0}}, True,
    )  # fmt: skip
