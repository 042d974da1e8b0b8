"""The whole job on a shape of the zoo, and every number of it beside plain `transformers`.

    verdict = judged("gemma2-caps", tmp_path, layers=2)
    verdict.outcome        "done", "refused" or "crashed"
    verdict.differences    {"sampler": 3e-6, ...}, largest over all answers

The numbers come from the run folder where they are there; `_watching` is all that looks inside.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from model_zoo import LAYERS, model_folder
from oracles.lm_numbers import (
    Drawing,
    Ids,
    Remembered,
    answer_logprobs,
    gradients,
    open_causal,
    open_classifier,
    open_tokenizer,
    perplexity,
    prompt_ids,
    sampled_kl,
    scores_alone,
    scores_padded,
)
from plaudit.records.files import read_json, read_jsonl
from simple_losses import WeightedLogp
from tiny_job import run_command, write_rows

WARM = Drawing(temperature=0.8)
NUM_TRAINED, NUM_HELD_OUT = 6, 2
NUM_ANSWERS = 4
MAX_NEW_TOKENS = 24  # with prompts of 20 tokens and more, beyond every window of the zoo

FLAGS: tuple[str, ...] = (
    *("--model", "model", "--prompts", "prompts.jsonl", "--reward", "reward.py:variety"),
    *("--num-held-out", str(NUM_HELD_OUT)),
    *("--sampling.max-new-tokens", str(MAX_NEW_TOKENS)),
    *("--feedback.answers-per-prompt", str(NUM_ANSWERS), "--feedback.pairs-per-prompt", "6"),
    # One update of all answers a step: its ratios are those of the first minibatch.
    *("--ppo.num-steps", "2", "--ppo.num-epochs", "1", "--ppo.num-minibatches", "1"),
    *("--ppo.prompts-per-step", "3", "--ppo.answers-per-prompt", "3"),
)
RATES = ("--ppo.lr", "--ppo.critic-lr", "--reward-model.lr")

REWARD = '''\
def variety(prompts, completions):
    """How many characters there are, and a share of one more, so that hardly any two are equal."""
    return [len(set(text)) + sum(map(ord, text)) % 101 / 101 for text in completions]
'''

TOPICS = (
    "a cart",
    "the river and the old bridge that it carries away in spring",
    "tea",
    "what a player says to the cart when its pole falls for the third time in one evening",
)

BOUNDS: dict[str, float] = {
    "sampler": 1e-3,
    "sampler after": 1e-3,
    "trainer": 1e-3,
    "reference": 1e-3,
    "gradient": 1e-3,
    "first KL": 1e-4,
    "first ratio": 1e-3,
    "KL": 1e-3,
    "perplexity": 1e-3,
    "score": 1e-4,
    "score where the pad token was drawn": 1e-4,
    "score, right padding": 1e-4,
    "score, left padding": 1e-4,
    "climbed score": 1e-4,
}
"""Largest difference allowed: nats a token, nats an answer, shares of the number, or scores.

The gradient's is the length of the difference, both scaled to length 1.
"""


@dataclass
class Verdict:
    """How a job ended, what was said, and its largest differences from plain `transformers`."""

    shape: str
    layers: int
    outcome: str
    said: str = ""
    how: str = ""
    moved: float = 0.0
    """Largest change of a token's log-probability by training: near 0 the rest would say little."""
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; none where all is right or was refused in time."""
        wrong = [self.said] if self.outcome == "crashed" else []
        wrong += [
            f"{name} differs by {value:.2g}"
            for name, value in self.differences.items()
            if not value <= BOUNDS[name]
        ]
        if self.outcome == "done" and not self.moved > 0.02:
            wrong.append(f"the policy did not move: by {self.moved:.2g} nats")
        return wrong


# --- all that looks inside a run


@dataclass
class _Seen:
    """PPO's roles, and each rollout with the scores that were climbed."""

    actor: Any = None
    reference: Any = None
    rollouts: list[tuple[Any, Tensor]] = field(default_factory=list)
    first: Tensor = field(default_factory=lambda: torch.zeros(0))
    """The trainer's log-probabilities of the first rollout, before any update."""

    def texts(self, index: int) -> list[tuple[Ids, Ids]]:
        """(prompt, answer) of each row of a rollout, as ids."""
        batch = self.rollouts[index][0]
        return [
            (batch.prompts[int(batch.group[row])].ids, batch.token[row][batch.there[row]].tolist())
            for row in range(len(batch))
        ]

    def logprobs(self, role: Any, index: int) -> list[Tensor]:
        """A role's own log-probabilities of a rollout, as the role is now."""
        batch = self.rollouts[index][0]
        logp = role.logprobs(batch)
        return [logp[row][batch.chosen[row]].double() for row in range(len(batch))]

    def gradients(self, index: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The actor's gradient of Σ weight·log π over a rollout, and the weights of each row."""
        batch = self.rollouts[index][0]
        weight = torch.randn(batch.chosen.shape, generator=torch.Generator().manual_seed(0))

        fields = {"weight": -weight}
        self.actor.update(batch, WeightedLogp(), fields=fields, denominator=1.0, lr=0.0)
        named = self.actor.backbone.lm.model.named_parameters()
        found = {name: p.grad for name, p in named if p.grad is not None}
        return found, [weight[row][batch.chosen[row]] for row in range(len(batch))]

    def first_ratio(self) -> float:
        """Largest |π/π_drawn − 1| of a token in the first rollout, before any update."""
        batch = self.rollouts[0][0]
        return float(((self.first - batch.logp)[batch.chosen].double().exp() - 1).abs().max())

    @property
    def how(self) -> str:
        backbone = getattr(self.actor, "backbone", None)
        return "packed" if getattr(backbone, "is_packed", True) else "plain"


@contextlib.contextmanager
def _watching() -> Iterator[_Seen]:
    """Sees PPO's roles and rollouts; the page is not drawn, which takes longer than the rest."""
    from plaudit.pipelines.rlhf import steps as rlhf

    seen, ppo, page = _Seen(), rlhf.ppo, mock.patch("plaudit.pipelines.pages.report.write_report")

    def watched(*args: Any, actor: Any, reference: Any, reward: Any, **others: Any) -> Any:
        seen.actor, seen.reference = actor, reference

        def climbed(batch: Any) -> Tensor:
            score: Tensor = reward(batch)
            if not seen.rollouts:
                seen.first = actor.logprobs(batch)
            seen.rollouts.append((batch, score.detach().sum(1)))
            return score

        return ppo(*args, actor=actor, reference=reference, reward=climbed, **others)

    with page, mock.patch.object(rlhf, "ppo", watched):
        yield seen


# --- the job


def judged(
    name: str,
    folder: Path,
    *,
    layers: int,
    drawing: Drawing = WARM,
    flags: Sequence[str] = (),
) -> Verdict:
    """Runs the job on the shape, training its top `layers`, and compares every number."""
    model_folder(name, folder / "model")
    topics = [TOPICS[i % len(TOPICS)] for i in range(NUM_TRAINED + NUM_HELD_OUT)]
    rows = [{"prompt": f"Write {i} words about {topic}."} for i, topic in enumerate(topics)]
    write_rows(folder / "prompts.jsonl", rows)
    (folder / "reward.py").write_text(REWARD)
    drawn_by = [
        *("--sampling.temperature", str(drawing.temperature)),
        *("--sampling.top-k", str(drawing.top_k), "--sampling.top-p", str(drawing.top_p)),
        *("--sampling.min-p", str(drawing.min_p)),
    ]
    rate = "5e-3" if layers < LAYERS else "1e-3"  # a few nats of KL either way
    rates = [word for key in RATES for word in (key, rate)]
    words = ("run", "rlhf", *FLAGS, *drawn_by, *rates, "--num-top-layers", str(layers), *flags)
    run, verdict = folder / "runs" / "one", Verdict(name, layers, "done")
    with contextlib.chdir(folder), warnings.catch_warnings(), _watching() as seen:
        warnings.simplefilter("ignore")  # families warn of themselves; not the judge's business
        try:
            done = run_command(*words, "--name", "one")
        except Exception as error:
            verdict.outcome = "crashed"
            verdict.said = f"{type(error).__name__}: {_line(str(error))}"
            return verdict
    if done.code:
        drawn = any((run / "stages").glob("answers_*"))
        verdict.outcome = "refused" if done.code == 2 and not drawn else "crashed"
        verdict.said = _line(done.err)
        for row in _steps_of_ppo(run)[:1]:
            verdict.differences["first KL"] = abs(row["objective/kl"])
        return verdict
    verdict.how = seen.how
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _compare(verdict, folder, run, seen, drawing)
    return verdict


def _line(said: str) -> str:
    """The line that names the error, of one that may come with a traceback."""
    lines = said.strip().splitlines() or [""]
    named = [line for line in lines if _ERROR.match(line)]
    return (named or lines)[0]


_ERROR = re.compile(r"[\w.]*(Error|Exception|Warning)\b")


def _steps_of_ppo(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    rows = read_jsonl(file) if file.exists() else []
    return [row for row in rows if row["stage"] == "ppo"]


@dataclass(frozen=True)
class _Drawn:
    """Answers kept by a stage: (prompt, answer) as ids, and the sampler's log-probabilities."""

    texts: list[tuple[Ids, Ids]]
    logp: list[Tensor]

    @classmethod
    def read(cls, run: Path, stage: str, prompts: Sequence[Ids]) -> _Drawn:
        arrays = load_file(run / "stages" / f"{stage}.safetensors")
        mask = arrays["there"].bool()
        return cls(
            [
                (prompts[i // NUM_ANSWERS], arrays["token"][i][mask[i]].tolist())
                for i in range(len(mask))
            ],
            [arrays["logp"][i][mask[i]].double() for i in range(len(mask))],
        )


def _compare(verdict: Verdict, folder: Path, run: Path, seen: _Seen, drawing: Drawing) -> None:
    start, policy = (Remembered(open_causal(path / "model")) for path in (folder, run))
    tokenizer = open_tokenizer(folder / "model")
    texts = [row["prompt"] for row in read_jsonl(folder / "prompts.jsonl")]
    prompts = [prompt_ids(tokenizer, text) for text in texts]
    before = _Drawn.read(run, "answers_held_out", prompts[-NUM_HELD_OUT:])
    after = _Drawn.read(run, "answers_after", prompts[-NUM_HELD_OUT:])
    said = read_json(run / "results.json")
    first = _steps_of_ppo(run)[0]
    rows = read_json(run / "answers.json")["answers"]
    put = verdict.differences

    put["sampler"] = _largest(before.logp, _plain(start, before.texts, drawing))
    put["sampler after"] = _largest(after.logp, _plain(policy, after.texts, drawing))
    last = len(seen.rollouts) - 1
    put["trainer"] = _largest(
        seen.logprobs(seen.actor, last), _plain(policy, seen.texts(last), drawing)
    )
    ours, weights = seen.gradients(last)
    if ours:  # adapters have gradients of their own
        theirs = gradients(policy.model, seen.texts(last), weights, drawing)
        put["gradient"] = _turned(ours, theirs)
    put["reference"] = max(
        _largest(seen.logprobs(seen.reference, i), _plain(start, seen.texts(i), drawing))
        for i in (0, last)
    )
    put["first KL"] = abs(first["objective/kl"])
    put["first ratio"] = max(abs(first["val/ratio"] - 1), seen.first_ratio())
    verdict.moved = _largest(*(_plain(model, after.texts, drawing) for model in (policy, start)))
    put["KL"] = _share(said["kl"], sampled_kl(policy, start, after.texts, drawing))
    put["perplexity"] = max(
        _share(said[f"perplexity_{side}"], perplexity(start, drawn.texts))
        for side, drawn in (("before", before), ("after", after))
    )
    _compare_scores(verdict, run, seen, {"before": before, "after": after}, rows)


def _compare_scores(
    verdict: Verdict,
    run: Path,
    seen: _Seen,
    drawn: dict[str, _Drawn],
    rows: Sequence[dict[str, Any]],
) -> None:
    try:
        scorer, padder = open_classifier(run / "reward_model"), open_tokenizer(run / "reward_model")
    except Exception as error:
        verdict.outcome = "crashed"
        verdict.said = f"the saved reward model does not open: {_line(str(error))}"
        return
    put = verdict.differences
    texts = [text for side in drawn.values() for text in side.texts]
    ours = torch.tensor(
        [row[f"reward_{side}"] for side in drawn for row in rows], dtype=torch.float64
    )
    # An answer cut by the length limit may end with the very token that the classifier pads with.
    pad = torch.tensor([answer[-1] == scorer.config.pad_token_id for _, answer in texts])
    alone = (scores_alone(scorer, texts) - ours).abs()
    put["score"] = float(alone[~pad].max())
    put["score where the pad token was drawn"] = float(alone[pad].max()) if pad.any() else 0.0
    for side in ("right", "left"):
        padded = (scores_padded(scorer, padder, texts, side) - ours).abs()
        put[f"score, {side} padding"] = float(padded[~pad].max())
    last = len(seen.rollouts) - 1
    climbed = seen.rollouts[last][1].double()
    rows_kept = [
        row for row, (_, a) in enumerate(seen.texts(last)) if a[-1] != scorer.config.pad_token_id
    ]
    theirs = scores_alone(scorer, [seen.texts(last)[row] for row in rows_kept])
    put["climbed score"] = _off_a_line(theirs, climbed[rows_kept])


def _turned(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Distance of two gradients scaled to length 1 (ours is clipped), over the tensors we train."""
    a, b = (torch.cat([grads[n].flatten().double() for n in ours]) for grads in (ours, theirs))
    return float((a / a.norm() - b / b.norm()).norm())


def _off_a_line(x: Tensor, y: Tensor) -> float:
    """Largest distance of x from a·y + b with a > 0: PPO climbs scores in a unit of its own."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dy * dy).sum().clamp(min=1e-30))
    return float((dx - slope * dy).abs().max()) if slope > 0 else float("inf")


def _plain(model: Any, texts: Sequence[tuple[Ids, Ids]], drawing: Drawing) -> list[Tensor]:
    return [answer_logprobs(model, *text, drawing) for text in texts]


def _largest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def _share(ours: float, theirs: float) -> float:
    """The difference as a share of what is right, or of 0.1 where that is less."""
    return abs(ours - theirs) / max(abs(theirs), 0.1)
