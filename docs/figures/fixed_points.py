"""Draws docs/images/lm/fixed_points.png: where algorithms come to rest, beside RLHF's optimum.

    python docs/figures/fixed_points.py             about three minutes

The worlds are those of the tests, small enough to list every answer: circles are where the real
loops end, lines where the enumeration of all answers says that they must.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))

from oracles import enumerated as e
from oracles import group_formulas as g
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.records.pairs import Pairs
from tree_world import (
    BANDIT,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeJudge,
    TreeReference,
    some_logits,
    some_rewards,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGET = Path(__file__).parent.parent / "images" / "lm" / "fixed_points.png"
BETA, LARGE = 1.0, 2.0
Ends = Mapping[str, tuple[Tensor, Tensor | None]]
"""Of each line of the picture: where it must end, and where the loop did, [K] each."""


def drawn(loop: Callable[..., Any], config: Any, tree: Tree, start: Tensor, reward: Any) -> Tensor:
    """The policy at the end of a loop that draws its answers: of each answer to the first prompt."""
    actor = TreeActor(tree, start)
    for _ in loop(
        config.model_copy(update={"save_every": 10_000}),
        actor=actor,
        judge=TreeJudge(tree, {"score": reward}),
        reference=TreeReference(tree, start),
        prompts=list(tree.prompts),
        sampling=tree.sampling,
        seed=0,
    ):
        pass
    return e.answer_logps(tree, actor.logits.detach())[0].exp()


def paired(loss: str, beta: float, tree: Tree, start: Tensor, reward: Sequence[Tensor]) -> Tensor:
    """The policy at the end of a loop over all pairs of answers to the first prompt."""
    prefer, num = e.bradley_terry(reward[0]), tree.counts[0]
    both = [(i, j) for i in range(num) for j in range(i + 1, num)]
    share = tuple(float(prefer[i, j]) for i, j in both)
    pairs = Pairs(tuple(i for i, _ in both), tuple(j for _, j in both), share)
    actor, data = TreeActor(tree, start), tree.batch()
    config = DPOConfig(
        loss=loss, beta=beta, num_epochs=800, batch_size=len(pairs), lr=0.05, save_every=10_000
    )  # type: ignore[arg-type]
    ref = TreeReference(tree, start).logprobs(data)
    for _ in dpo(config, actor=actor, data=data, pairs=pairs, logp_ref=ref, seed=0):
        pass
    return e.answer_logps(tree, actor.logits.detach())[0].exp()


def one_token() -> Ends:
    """Answers of one token."""
    tree, start = BANDIT, some_logits(BANDIT, 0, 0.4)
    reward = [torch.tensor([0.3, 1.5, 0.9, 2.7, 0.0], dtype=torch.float64)]
    ref = e.answer_logps(tree, start)[0]
    best = tree.optimum(start, reward, LARGE)[0]
    groups = {"num_steps": 800, "lr": 0.1, "kl_coef": LARGE, "denominator": "constant"}
    plain = GRPOConfig(**groups, prompts_per_step=128, answers_per_prompt=4, scale="none")
    std = GRPOConfig(**groups, prompts_per_step=8, answers_per_prompt=128, scale="group")
    free = RLOOConfig(
        num_steps=400, prompts_per_step=1, answers_per_prompt=64, lr=0.1, kl_coef=LARGE
    )
    larger = tree.optimum(start, reward, e.larger_beta(LARGE, 4))[0]
    prefer = e.bradley_terry(reward[0])
    return {
        "reference": (ref.exp(), None),
        "RLOO, KL in the reward": (best, drawn(rloo, free, tree, start, reward)),
        "DPO": (best, paired("dpo", LARGE, tree, start, reward)),
        "IPO": (e.ipo_optimum(ref, prefer, LARGE), paired("ipo", LARGE, tree, start, reward)),
        "GRPO of 4 without std": (larger, drawn(grpo, plain, tree, start, reward)),
        "GRPO of 128 with std": (
            e.grpo_limit(ref, reward[0], LARGE),
            drawn(grpo, std, tree, start, reward),
        ),
    }


def whole_answers() -> Ends:
    """Answers of several tokens, of unequal lengths."""
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), [2 * r for r in some_rewards(tree, 1)]
    best = tree.optimum(start, reward, BETA)[0]
    free = RLOOConfig(
        num_steps=400, prompts_per_step=2, answers_per_prompt=64, lr=0.1, kl_coef=BETA
    )
    ends: dict[str, tuple[Tensor, Tensor | None]] = {
        "reference": (e.answer_logps(tree, start)[0].exp(), None),
        "RLOO, KL in the reward": (best, drawn(rloo, free, tree, start, reward)),
    }
    kinds = {"constant": e.of_constant, "answer": e.of_answer}
    for denominator, weight in kinds.items():

        def field(z: Tensor, weight: Any = weight) -> Tensor:
            of = e.vectorised(g.dr_grpo)
            return e.group_gradient(tree, z, reward, 2, of, weight, beta=BETA, ref=start, kl="k2")

        wanted = e.answer_logps(tree, e.fixed_point(field, start))[0].exp()
        config = GRPOConfig(
            num_steps=800, prompts_per_step=512, answers_per_prompt=2, lr=0.1, kl_coef=BETA,
            kl_in="loss", scale="none", denominator=denominator,
        )  # fmt: skip
        ends[f"GRPO of 2, KL in the loss / {denominator}"] = (
            wanted,
            drawn(grpo, config, tree, start, reward),
        )
    return ends


def panel(ax: Axes, title: str, ends: Ends) -> None:
    """A group of bars for each answer; the optimum is a line across its group."""
    from matplotlib import colormaps

    names = list(ends)
    best = ends["RLOO, KL in the reward"][0]
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        wanted, found = ends[name]
        at = torch.arange(len(wanted)) + (k - (len(names) - 1) / 2) * width
        distance = float((wanted - best).abs().sum()) / 2
        label = f"{name}: {distance:.3f}" if k else f"{name}: {distance:.2f}"
        colour = "0.75" if not k else colormaps["tab10"](k - 1)
        ax.bar(at, wanted, width * 0.9, color=colour, alpha=0.45, label=label)
        if found is not None:
            ax.plot(at, found, "o", ms=4, color=colour, mec="black", mew=0.5)
    for i, p in enumerate(best.tolist()):
        ax.hlines(p, i - 0.45, i + 0.45, color="black", lw=1, ls="--", zorder=0)
    ax.set_xticks(range(len(best)), [f"answer {i + 1}" for i in range(len(best))])
    ax.set_title(title, loc="left")
    ax.set_ylabel("probability")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(title="distance (total variation) from the optimum", frameon=False, fontsize=8)


def main() -> None:
    """Both panels in one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    panel(left, "Answers of one token, β = 2", one_token())
    panel(right, "Answers of one to three tokens, β = 1", whole_answers())
    fig.suptitle(
        "Dashed: π_ref exp(r/β), which RLHF is after. Bars: where each must end, by enumeration. "
        "Dots: where the loops ended.",
        fontsize=10,
    )
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
