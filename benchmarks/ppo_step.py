"""One PPO step with one shared trunk, and with four models: same weights, data and threads.

    python benchmarks/ppo_step.py [--threads N] [--repeats R] [--prompts P] [--answers G]

Three ways to hold actor, reference, critic and reward model, which train the same top layers of
the embedded SmolLM2 and take the same PPO steps in turn:

- shared trunk: what Plaudit does. The lower layers' outputs are kept from generation.
- four models: a whole model for each role; every call runs every layer from token ids, without
  gradients below the top. The answers to a prompt still share its computation.
- four models, one row an answer: besides, each answer is generated and trained with a prompt of
  its own, as trainers do that know no groups.

All three run Plaudit's code on the same products, so only the work differs. A step is generation,
scores, log-probabilities of the reference, values, and the updates of actor and critic. Before
anything is timed, all that a step computes is compared on the same answers, gradients included, and
the run ends if it differs by more than float32's rounding. In the timed steps each way draws for
itself, so that an answer may part ways where a draw falls on a border between tokens.
Times are processor time of this process on one thread (other jobs disturb it less), wall-clock time
on more. Needs about 11 GB of memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from floors import (
    forward_seconds,
    input_gradient_seconds,
    layer_weights,
    weight_gradient_seconds,
)
from machine import clock, description
from plaudit.engine.local import LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.models.sampling.sampler import Sampler
from plaudit.ops import aggregate
from plaudit.records.events import Event, Step
from plaudit.records.files import write_text
from plaudit.records.losses import Numbers, Part
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "ppo_step.md"
PROMPTS = ROOT.parent / "src" / "plaudit" / "recipes" / "prompts_demo.jsonl"
TOLERANCE = 1e-3
"""Largest difference allowed, as a fraction of the gradient's (or the losses') norm."""

PARTS = ("generate", "reward", "reference", "values", "actor update", "critic update")
TRAINING = PARTS[1:]
WAYS = ("shared trunk", "four models", "four models, one row an answer")


@dataclass(frozen=True)
class Roles:
    """The four roles, and the time that each part of a step has taken since `clear`."""

    actor: LocalActor
    critic: LocalCritic
    reference: LocalReference
    reward: LocalRewardModel
    spent: dict[str, float]

    def calls(self) -> tuple[tuple[str, Any, str], ...]:
        return (
            ("generate", self.actor, "generate"),
            ("reference", self.reference, "logprobs"),
            ("values", self.critic, "values"),
            ("actor update", self.actor, "update"),
            ("critic update", self.critic, "update"),
        )


def alone(batch: Trajectories) -> Trajectories:
    """The same answers, each with a prompt of its own; rows keep their order."""
    groups = batch.group.tolist()
    return replace(
        batch,
        prompts=tuple(batch.prompts[g] for g in groups),
        group=torch.arange(len(groups)),
    )


def roles(lm: LanguageModel, way: str, head: Tensor, top: int) -> Roles:
    """Actor, critic, reference and reward model from the same weights, held in one of the ways."""
    shared = SharedBackbone(replace(lm, model=copy.deepcopy(lm.model)), num_top_layers=top)

    def backbone() -> SharedBackbone:
        if way == "shared trunk":
            return shared
        return SharedBackbone(replace(lm, model=copy.deepcopy(lm.model)), num_top_layers=top)

    actor = LocalActor(backbone())
    reward, critic = LocalRewardModel(backbone()), LocalCritic(backbone())
    with torch.no_grad():
        reward.head.weight.copy_(head)
        critic.head.weight.copy_(head)
    made = Roles(actor, critic, LocalReference(backbone()), reward, {})
    if way != "shared trunk":
        codec = lm.codec
        actor.backbone.sampler = Sampler(
            actor.backbone.lm.model, stop_ids=codec.stop_ids, pad_id=codec.pad_id
        )
    if way == WAYS[2]:
        _ungroup(made)
    for name, role, method in made.calls():
        setattr(role, method, _timed(name, getattr(role, method), made.spent))
    return made


def _ungroup(made: Roles) -> None:
    """Every call sees each answer in a row of its own, as `alone` makes them."""
    generate = made.actor.generate

    def generated(
        prompts: Sequence[Prompt],
        *,
        num_answers: int,
        sampling: Sampling,
        seed: int,
        replier: None = None,
    ) -> Trajectories:
        del replier
        repeated = [p for p in prompts for _ in range(num_answers)]
        batch = generate(repeated, num_answers=1, sampling=sampling, seed=seed)
        group = torch.arange(len(prompts)).repeat_interleave(num_answers)
        return replace(batch, prompts=tuple(prompts), group=group)

    made.actor.generate = generated  # type: ignore[method-assign]
    for _, role, method in made.calls()[1:]:
        plain = getattr(role, method)
        setattr(role, method, lambda batch, *a, plain=plain, **k: plain(alone(batch), *a, **k))


def _timed(name: str, call: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        begin = clock()
        out = call(*args, **options)
        spent[name] = spent.get(name, 0.0) + clock() - begin
        return out

    return timed


def steps(
    made: Roles, way: str, config: PPOConfig, prompts: Sequence[Prompt], sampling: Sampling
) -> Iterator[Event]:
    """The library's own PPO over these roles."""

    def judged(batch: Trajectories) -> Tensor:
        return made.reward(alone(batch) if way == WAYS[2] else batch)

    return ppo(
        config,
        actor=made.actor,
        critic=made.critic,
        reference=made.reference,
        reward=_timed("reward", judged, made.spent),
        prompts=prompts,
        sampling=sampling,
        seed=0,
    )


def one_step(events: Iterator[Event], spent: dict[str, float]) -> tuple[dict[str, float], Any]:
    """(seconds of each part and of the whole step, its metrics)."""
    spent.clear()
    begin = clock()
    metrics = next(event.metrics for event in events if isinstance(event, Step))
    return {**spent, "step": clock() - begin}, metrics


@dataclass(frozen=True)
class Sloped:
    """A loss with another weight for every token: of log-probabilities, or of values."""

    needs: tuple[str, ...]
    together: ClassVar[bool] = False

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        x, slope = part[self.needs[0]], part["slope"]
        each = -x * slope if "logp" in self.needs else (x - slope) ** 2
        loss = aggregate(each, part.chosen, part.denominator)
        return loss, {"loss": loss.detach()}


def update_of(made: Roles, batch: Trajectories) -> list[Tensor]:
    """Losses of one update of actor and critic with the weights left alone, and the gradients."""
    count = int(batch.chosen.sum())
    slope = torch.linspace(-1, 1, batch.chosen.numel()).view(batch.chosen.shape)
    summed = []
    for role, name in ((made.actor, "logp"), (made.critic, "value")):
        told = role.accumulate(batch, Sloped((name,)), fields={"slope": slope}, denominator=count)
        summed.append(torch.tensor(told["loss"]))
    parameters = (*made.actor.learner.parameters.values(), *made.critic.learner.parameters.values())
    return summed + [p.grad.clone() for p in parameters if p.grad is not None]


def check(
    all_roles: dict[str, Roles], prompts: Sequence[Prompt], num_answers: int, sampling: Sampling
) -> float:
    """Largest relative difference between the ways, of all that a step computes.

    Scores, log-probabilities of the reference, values, losses, and the gradient of each tensor. All ways learn from the same answers, without kept hidden states but for the shared trunk's.
    Each also draws for itself, and must draw the same tokens, but for the rare answer in which a
    uniform number falls within rounding of the border between two tokens.
    """
    results, drawn = {}, {}
    for way, made in all_roles.items():
        drawn[way] = made.actor.generate(
            prompts, num_answers=num_answers, sampling=sampling, seed=7
        )
        batch = drawn[WAYS[0]]
        if way != WAYS[0]:
            same = sum(a == b for a, b in zip(drawn[way].texts, batch.texts, strict=True))
            if same < 0.75 * len(batch):
                raise SystemExit(f"{way}: only {same} of {len(batch)} answers were the same")
        judged = alone(batch) if way == WAYS[2] else batch
        seen = [made.reward(judged), made.reference.logprobs(batch), made.critic.values(batch)]
        results[way] = [*seen, *update_of(made, batch)]
    worst = 0.0
    for way in WAYS[1:]:
        for x, y in zip(results[WAYS[0]], results[way], strict=True):
            worst = max(worst, float((x - y).norm() / x.norm().clamp_min(1e-12)))
    if worst > TOLERANCE:
        raise SystemExit(f"scores, losses or gradients differ by {worst:.1e} of their size")
    return worst


def table(seconds: dict[str, list[dict[str, float]]]) -> list[str]:
    """Medians of every part, and each way's time over the shared trunk's."""
    median = {
        way: {part: statistics.median(r[part] for r in runs) for part in runs[0]}
        for way, runs in seconds.items()
    }
    first = median[WAYS[0]]

    def training(of: dict[str, float]) -> float:
        return of["step"] - of["generate"]

    heads = ("seconds", *PARTS, "training (all but generation)", "step")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for way, of in median.items():
        cells = [f"{of[part]:.2f}" for part in PARTS]
        lines.append(f"| {way} | {' | '.join(cells)} | {training(of):.2f} | {of['step']:.2f} |")
    lines += ["", f"| time over the shared trunk's | {' | '.join(heads[1:])} |"]
    lines += [f"|{'---|' * len(heads)}"]
    for way, of in list(median.items())[1:]:
        cells = [f"{of[part] / first[part]:.2f}" for part in PARTS]
        whole = f"**{training(of) / training(first):.2f}** | **{of['step'] / first['step']:.2f}**"
        lines.append(f"| {way} | {' | '.join(cells)} | {whole} |")
    return lines


@dataclass(frozen=True)
class Sizes:
    """Places of a step: of the prompts (each once), of the answers, and of the answers' rows."""

    prompt_places: float
    answer_places: float
    rows: int
    num_epochs: int


MANY_ROWS = 512
"""Rows at which products of many places are timed."""


def floor_of(lm: LanguageModel, top: int, sizes: Sizes) -> dict[str, float]:
    """Seconds of the matrix products that each part of a step with a shared trunk needs.

    Attention, norms and everything else count as nothing, and so does the gradient of the trunk's
    states; answers that end early give back their places.
    """
    every = lm.model.model.layers
    head = lm.model.get_output_embeddings().weight.detach()
    layers, tops = layer_weights(every), layer_weights(every[len(every) - top :])
    each = 1 / MANY_ROWS
    top_forward = forward_seconds(tops, MANY_ROWS) * each
    top_back = input_gradient_seconds(tops[1:], MANY_ROWS) * each
    top_back += weight_gradient_seconds(tops, MANY_ROWS) * each
    head_forward = forward_seconds([head], MANY_ROWS) * each
    head_back = input_gradient_seconds([head], MANY_ROWS) * each
    steps = sizes.answer_places - sizes.rows  # an answer's first token comes from the prefill
    decode = forward_seconds([*layers, head], sizes.rows) / sizes.rows * steps
    prefill = forward_seconds(layers, MANY_ROWS) * each * sizes.prompt_places
    places = sizes.prompt_places + sizes.answer_places
    read = top_forward * places
    learnt = (top_forward + top_back) * places
    heads = (head_forward + head_back) * sizes.answer_places
    found = {
        "generate": prefill + decode,
        "reward": read,
        "reference": read + head_forward * sizes.answer_places,
        "values": read,
        "actor update": sizes.num_epochs * (learnt + heads),
        "critic update": sizes.num_epochs * learnt,
    }
    return {**found, "step": sum(found.values())}


def floor_table(median: dict[str, float], floor: dict[str, float]) -> list[str]:
    """The shared trunk's time beside its floor."""
    parts = (*PARTS, "step")
    rows = (
        ("floor, seconds", [f"{floor[part]:.2f}" for part in parts]),
        ("shared trunk's time ÷ floor", [f"{median[part] / floor[part]:.2f}" for part in parts]),
    )
    lines = [f"| | {' | '.join(parts)} |", f"|{'---|' * (len(parts) + 1)}"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="PPO steps of each way")
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step")
    parser.add_argument("--answers", type=int, default=4, help="answers to a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--top", type=int, default=6, help="layers that are trained")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    lm = load_language_model(chosen.model)
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    prompts = [lm.codec.prompt(row["prompt"]) for row in rows]
    width = int(lm.model.config.hidden_size)
    head = torch.randn(1, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    sampling = Sampling(max_new_tokens=chosen.tokens)
    made = {way: roles(lm, way, head, chosen.top) for way in WAYS}
    worst = check(made, prompts[:4], chosen.answers, sampling)
    config = PPOConfig(
        num_steps=chosen.repeats + 1,
        prompts_per_step=chosen.prompts,
        answers_per_prompt=chosen.answers,
        max_policy_kl=1e9,
        lr=1e-6,
        critic_lr=1e-6,
    )
    events = {way: steps(made[way], way, config, prompts, sampling) for way in WAYS}
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(chosen.repeats):
        metrics = {}
        for way in WAYS:
            spent, metrics[way] = one_step(events[way], made[way].spent)
            seconds[way].append(spent)
        print({way: f"{s[-1]['step']:.1f} s" for way, s in seconds.items()}, flush=True)
    rows_drawn = chosen.prompts * chosen.answers
    sizes = Sizes(
        prompt_places=chosen.prompts * statistics.mean(len(p.ids) for p in prompts),
        answer_places=rows_drawn * metrics[WAYS[0]]["answer/length"],
        rows=rows_drawn,
        num_epochs=config.num_epochs,
    )
    floor = floor_of(lm, chosen.top, sizes)
    lines = report(lm, chosen, seconds, worst, metrics, floor)
    print("\n".join(lines))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, "\n".join(lines))


def report(
    lm: LanguageModel,
    chosen: argparse.Namespace,
    seconds: dict[str, list[dict[str, float]]],
    worst: float,
    metrics: dict[str, Any],
    floor: dict[str, float],
) -> list[str]:
    """The page."""
    total = lm.model.config.num_hidden_layers
    unit = "processor seconds" if chosen.threads == 1 else "seconds of wall-clock time"
    length = metrics[WAYS[0]]["answer/length"]
    return [
        "# One PPO step: one shared trunk and four models",
        "",
        f"{description()}. {lm.source}, float32, the top {chosen.top} of {total} layers trained; "
        f"{chosen.prompts} prompts × {chosen.answers} answers of at most {chosen.tokens} tokens "
        f"({length:.1f} on average in the last step), 2 epochs of 2 minibatches. "
        f"Medians of {chosen.repeats} steps each, in turn, in {unit}.",
        "",
        *table(seconds),
        "",
        "The floor is the matrix products of every part, at the rates that they reach alone.",
        "",
        *floor_table(
            {part: statistics.median(r[part] for r in seconds[WAYS[0]]) for part in floor}, floor
        ),
        "",
        "Before timing, scores, log-probabilities, values, losses and the gradient of every tensor "
        f"were compared on the same answers: they differ by at most {worst:.0e} of their size.",
        "",
        "How it is measured: `benchmarks/ppo_step.py`.",
        "",
    ]


if __name__ == "__main__":
    main()
