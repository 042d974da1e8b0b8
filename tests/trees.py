"""Trees of tokens whose every answer can be listed: worlds for language-model algorithms.

    tree = Tree(answers=[[(0,), (1, 0), (1, 1), (2, 0, 1), (2, 2)], ...], vocabulary=3)

Branches and lengths are unequal, so that what a token-wise penalty or a mean over tokens changes can
be seen; one-token answers cannot show it. Numbers are in the precision of the logits, float64 in
`some_logits`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

Row = tuple[int, tuple[int, ...]]
"""A prompt's number and an answer's tokens."""


@dataclass
class Tree:
    """Answers of each prompt, none of which begins another; a node is a prompt and a prefix.

    Nodes are numbered as they first occur in the answers; a policy is logits [N, V], of which those
    of the tokens that some answer goes on with count. Answers in `truncated` were cut by a limit.
    """

    answers: Sequence[Sequence[tuple[int, ...]]]
    vocabulary: int
    truncated: Collection[Row] = ()
    nodes: dict[Row, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for p, answer in self.every:
            for t in range(len(answer)):
                self.nodes.setdefault((p, answer[:t]), len(self.nodes))
        shape = (len(self.nodes), self.vocabulary)
        self.child = torch.full(shape, -1)  # the node after a token
        self.leaf = torch.full(shape, -1)  # the answer that a token ends, in the order of `every`
        for number, (p, answer) in enumerate(self.every):
            if not answer or (p, answer) in self.nodes or self.every.index((p, answer)) < number:
                raise ValueError(f"{answer} is empty or begins another answer of prompt {p}")
            for t, token in enumerate(answer[:-1]):
                here = self.nodes[p, answer[:t]]
                self.child[here, token] = self.nodes[p, answer[: t + 1]]
            self.leaf[self.nodes[p, answer[:-1]], answer[-1]] = number
        self.allowed = (self.child >= 0) | (self.leaf >= 0)
        self.root = torch.tensor([self.nodes[p, ()] for p in range(len(self.answers))])
        self.counts = [len(listed) for listed in self.answers]
        self.prompts = tuple(Prompt(f"prompt {p}", (p,)) for p in range(len(self.answers)))
        self.longest = max(len(answer) for _, answer in self.every)
        self.sampling = Sampling(max_new_tokens=self.longest)
        self.number = {row: i for i, row in enumerate(self.every)}
        self.token = torch.tensor([[*a, *[0] * (self.longest - len(a))] for _, a in self.every])
        self.there = torch.tensor(
            [[t < len(a) for t in range(self.longest)] for _, a in self.every]
        )

    @functools.cached_property
    def every(self) -> list[Row]:
        """All answers of the first prompt, in order, then of the second, and so on."""
        return [(p, a) for p, listed in enumerate(self.answers) for a in listed]

    def batch(
        self, rows: Sequence[Row] | None = None, *, logits: Tensor | None = None
    ) -> Trajectories:
        """Rows (prompt, answer) as a batch, by default every answer once; with `logits` as if that
        policy had drawn them, else as given ones."""
        rows = self.every if rows is None else rows
        used = sorted({p for p, _ in rows})
        group = torch.tensor([used.index(p) for p, _ in rows], dtype=torch.int64)
        number = torch.tensor([self.number[row] for row in rows], dtype=torch.int64)
        return self._batch(number, [self.prompts[p] for p in used], group, logits)

    def _batch(
        self, number: Tensor, prompts: Sequence[Prompt], group: Tensor, logits: Tensor | None
    ) -> Trajectories:
        """The answers of these numbers, in the order of `every`."""
        rows = [self.every[i] for i in number.tolist()]
        made = Trajectories.of_answers(
            prompts=prompts,
            group=group,
            token=self.token[number],
            mask=self.there[number],
            logp=torch.zeros(len(rows), self.longest, dtype=torch.float64),
            terminated=torch.tensor([row not in self.truncated for row in rows]),
            texts=["".join(map(str, answer)) for _, answer in rows],
            sampling=self.sampling,
        )
        return made if logits is None else replace(made, logp=self.logprobs(logits, made))

    def rows(self, batch: Trajectories) -> list[Row]:
        """Each row's prompt and answer."""
        return [
            (batch.prompts[g].ids[0], tuple(ids[there].tolist()))
            for g, ids, there in zip(batch.group.tolist(), batch.token, batch.there, strict=True)
        ]

    def places(self, batch: Trajectories) -> Tensor:
        """The node before each token [B, T]; 0 where there is none."""
        prompt = torch.tensor([p.ids[0] for p in batch.prompts])
        here, out = self.root[prompt][batch.group], torch.zeros_like(batch.token)
        for t in range(batch.token.shape[1]):
            there = batch.there[:, t]
            if t:
                here = self.child[out[:, t - 1], batch.token[:, t - 1] * there]
            if bool((here[there] < 0).any()):
                raise ValueError("a row leaves the tree")
            out[there, t] = here[there]
        return out

    def numbers(self, batch: Trajectories) -> Tensor:
        """Which answer each row is [B], in the order of `every`."""
        last = (batch.there.cumsum(1) * batch.there).argmax(1)
        each = torch.arange(len(batch))
        found = self.leaf[self.places(batch)[each, last], batch.token[each, last]]
        if bool((found < 0).any()) or not bool(batch.there.any(1).all()):
            raise ValueError("a row is no answer of the tree")
        return found

    def log_policy(self, logits: Tensor) -> Tensor:
        """log π of every node's tokens [N, V]; −inf off the tree."""
        return logits.masked_fill(~self.allowed, -torch.inf).log_softmax(-1)

    def logprobs(self, logits: Tensor, batch: Trajectories) -> Tensor:
        """log π of the chosen tokens [B, T], 0 elsewhere; differentiable."""
        logp = self.log_policy(logits)[self.places(batch), batch.token * batch.chosen]
        return torch.where(batch.chosen, logp, 0.0)

    def log_answers(self, logits: Tensor) -> list[Tensor]:
        """log π of every answer, for each prompt; differentiable."""
        return list(self.logprobs(logits, self.batch()).sum(1).split(self.counts))

    def optimum(self, logits: Tensor, reward: Sequence[Tensor], beta: float) -> list[Tensor]:
        """π_ref exp(r/β) / Z over each prompt's answers, with π_ref of these logits."""
        logs = self.log_answers(logits)
        return [(x + r / beta).softmax(0) for x, r in zip(logs, reward, strict=True)]

    def kl(self, logits: Tensor, logits_ref: Tensor) -> Tensor:
        """KL(π‖π_ref) of whole answers, for each prompt [P]; differentiable."""
        pairs = zip(self.log_answers(logits), self.log_answers(logits_ref), strict=True)
        return torch.stack([(x.exp() * (x - y)).sum() for x, y in pairs])

    def distance(self, logits: Tensor, wanted: Sequence[Tensor]) -> float:
        """The largest total variation from the wanted distributions, over prompts."""
        logs = self.log_answers(logits.detach())
        return max(float((x.exp() - w).abs().sum()) / 2 for x, w in zip(logs, wanted, strict=True))

    def logits_of(self, wanted: Sequence[Tensor]) -> Tensor:
        """Logits [N, V] of the policy that gives every answer its wanted probability."""
        mass = torch.zeros(self.allowed.shape, dtype=wanted[0].dtype)
        for (p, answer), share in zip(self.every, torch.cat(list(wanted)), strict=True):
            for t, token in enumerate(answer):
                mass[self.nodes[p, answer[:t]], token] += share
        return mass.log().masked_fill(~self.allowed, 0.0)

    def draw(self, logits: Tensor, prompts: Sequence[Prompt], num: int, seed: int) -> Trajectories:
        """`num` answers to each prompt, drawn; a prompt asked twice is two groups."""
        logs = [x.exp() for x in self.log_answers(logits.detach())]
        share = torch.nn.utils.rnn.pad_sequence(logs, batch_first=True)
        asked = torch.tensor([p.ids[0] for p in prompts]).repeat_interleave(num)
        generator = torch.Generator().manual_seed(seed)
        picks = torch.multinomial(share[asked], 1, generator=generator)[:, 0]
        first = torch.tensor([0, *itertools.accumulate(self.counts)])[asked]
        group = torch.arange(len(prompts)).repeat_interleave(num)
        return self._batch(first + picks, prompts, group, logits.detach())


def bandit(num_prompts: int, num_answers: int) -> Tree:
    """One-token answers: logits [P, A]."""
    return Tree([[(a,) for a in range(num_answers)]] * num_prompts, num_answers)


BANDIT = bandit(1, 5)

SQUARE = Tree([list(itertools.product(range(3), repeat=2))], 3)
"""Two levels of three: the smallest in which a penalty for each token alone goes wrong."""

TWO_PROMPTS = Tree(
    answers=[
        [(0,), (1, 0), (1, 1), (2, 0, 0), (2, 0, 1), (2, 1)],
        [(0, 1), (0, 2), (1,), (2, 2, 0), (2, 2, 2)],
    ],
    vocabulary=3,
)
"""Two or three levels, one to three branches, answers of one to three tokens."""

LOPSIDED = Tree([[(4,), (0, 3), (1, 0, 2), (1, 0, 4), (1, 1), (1, 2, 3)]], 5)
"""One prompt and five words; two of the six nodes have a single branch."""


def some_logits(tree: Tree, seed: int, scale: float = 0.7) -> Tensor:
    """Random logits [N, V], float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(tree.allowed.shape, generator=generator, dtype=torch.float64)


def some_rewards(tree: Tree, seed: int) -> list[Tensor]:
    """A random reward of each answer, for each prompt."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in tree.counts]
