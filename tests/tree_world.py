"""Language-model algorithms on trees of tokens whose every answer can be listed.

    tree = Tree(answers=[[(0,), (1, 0), (1, 1), (2, 0, 1), (2, 2)], ...], vocabulary=3)
    actor = TreeActor(tree, logits)                 logits [N, V], a row for each inner node

Branches and lengths are unequal, so that what a token-wise penalty or a mean over tokens changes can
be seen; one-token answers cannot show it. All in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from plaudit.records.losses import Part, cut
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


@dataclass
class Tree:
    """Answers of each prompt, none of which begins another; a node is a prompt and a prefix."""

    answers: Sequence[Sequence[tuple[int, ...]]]
    vocabulary: int
    nodes: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for p, listed in enumerate(self.answers):
            for answer in listed:
                for t in range(len(answer)):
                    self.nodes.setdefault((p, answer[:t]), len(self.nodes))
        self.allowed = torch.zeros(len(self.nodes), self.vocabulary, dtype=torch.bool)
        for p, listed in enumerate(self.answers):
            for answer in listed:
                for t, token in enumerate(answer):
                    self.allowed[self.nodes[p, answer[:t]], token] = True
        self.prompts = tuple(Prompt(f"prompt {p}", (p,)) for p in range(len(self.answers)))
        self.longest = max(len(a) for listed in self.answers for a in listed)
        self.sampling = Sampling(max_new_tokens=self.longest)
        self.number = {row: i for i, row in enumerate(self.every)}
        self.texts = ["".join(map(str, answer)) for _, answer in self.every]
        self.by_text = {
            (p, text): i
            for i, ((p, _), text) in enumerate(zip(self.every, self.texts, strict=True))
        }
        shape = (len(self.every), self.longest)
        self.tokens = torch.zeros(shape, dtype=torch.int64)
        self.masks = torch.zeros(shape, dtype=torch.bool)
        self.before = torch.zeros(shape, dtype=torch.int64)
        for i, (p, answer) in enumerate(self.every):
            self.masks[i, : len(answer)] = True
            for t, token in enumerate(answer):
                self.tokens[i, t] = token
                self.before[i, t] = self.nodes[p, answer[:t]]

    @property
    def every(self) -> list[tuple[int, tuple[int, ...]]]:
        """Each prompt's answers, in order."""
        return [(p, a) for p, listed in enumerate(self.answers) for a in listed]

    def batch(self, rows: Sequence[tuple[int, tuple[int, ...]]] | None = None) -> Trajectories:
        """Rows (prompt, answer) as a batch; by default every answer once."""
        rows = self.every if rows is None else rows
        used = sorted({p for p, _ in rows})
        group = torch.tensor([used.index(p) for p, _ in rows])
        index = torch.tensor([self.number[row] for row in rows])
        return self._made(tuple(self.prompts[p] for p in used), group, index)

    def _made(self, prompts: tuple[Prompt, ...], group: Tensor, index: Tensor) -> Trajectories:
        return Trajectories.of_answers(
            prompts=prompts,
            group=group,
            token=self.tokens[index],
            mask=self.masks[index],
            logp=torch.zeros(len(index), self.longest, dtype=torch.float64),
            terminated=torch.ones(len(index), dtype=torch.bool),
            texts=tuple(self.texts[i] for i in index.tolist()),
            sampling=self.sampling,
        )

    def index(self, batch: Trajectories) -> Tensor:
        """Which of `every` each row is, by its prompt and its text."""
        asked = [prompt.ids[0] for prompt in batch.prompts]
        pairs = zip(batch.group.tolist(), batch.texts, strict=True)
        return torch.tensor([self.by_text[asked[g], text] for g, text in pairs])

    def places(self, batch: Trajectories) -> Tensor:
        """The node before each token [B, T]; 0 off the mask."""
        found = self.before[self.index(batch)]
        return torch.nn.functional.pad(found, (0, batch.token.shape[1] - self.longest))

    def rows(self, batch: Trajectories) -> list[tuple[int, tuple[int, ...]]]:
        """Each row's prompt and answer."""
        return [
            (batch.prompts[g].ids[0], tuple(ids[there].tolist()))
            for g, ids, there in zip(batch.group.tolist(), batch.token, batch.there, strict=True)
        ]

    def log_policy(self, logits: Tensor) -> Tensor:
        """log π of every node's tokens [N, V]."""
        return logits.masked_fill(~self.allowed, -torch.inf).log_softmax(-1)

    def log_answers(self, logits: Tensor) -> list[Tensor]:
        """log π of every answer, for each prompt."""
        logp = self.log_policy(logits)
        return [
            torch.stack(
                [
                    sum(logp[self.nodes[p, a[:t]], a[t]] for t in range(len(a)))  # type: ignore[misc]
                    for a in listed
                ]
            )
            for p, listed in enumerate(self.answers)
        ]

    def optimum(self, logits: Tensor, reward: Sequence[Tensor], beta: float) -> list[Tensor]:
        """π_ref exp(r/β) / Z over each prompt's answers."""
        logs = self.log_answers(logits)
        return [(x + r / beta).softmax(0) for x, r in zip(logs, reward, strict=True)]

    def distance(self, logits: Tensor, wanted: Sequence[Tensor]) -> float:
        """The largest total variation from the wanted distributions, over prompts."""
        logs = self.log_answers(logits.detach())
        return max(float((x.exp() - w).abs().sum()) / 2 for x, w in zip(logs, wanted, strict=True))

    def draw(self, logits: Tensor, prompts: Sequence[Prompt], num: int, seed: int) -> Trajectories:
        """`num` answers to each prompt, drawn; a prompt asked twice is two groups."""
        generator = torch.Generator().manual_seed(seed)
        logs = self.log_answers(logits.detach())
        first = [0]
        for listed in self.answers:
            first.append(first[-1] + len(listed))
        picks = [
            first[prompt.ids[0]]
            + torch.multinomial(
                logs[prompt.ids[0]].exp(), num, replacement=True, generator=generator
            )
            for prompt in prompts
        ]
        group = torch.arange(len(prompts)).repeat_interleave(num)
        return self._made(tuple(prompts), group, torch.cat(picks))


TWO_PROMPTS = Tree(
    answers=[
        [(0,), (1, 0), (1, 1), (2, 0, 0), (2, 0, 1), (2, 1)],
        [(0, 1), (0, 2), (1,), (2, 2, 0), (2, 2, 2)],
    ],
    vocabulary=3,
)
"""Two or three levels, one to three branches, answers of one to three tokens."""

BANDIT = Tree(answers=[[(0,), (1,), (2,), (3,), (4,)]], vocabulary=5)
"""One token."""

SQUARE = Tree(answers=[[(a, b) for a in range(3) for b in range(3)]], vocabulary=3)
"""Two levels of three: the smallest in which a penalty for each token alone goes wrong."""


def some_logits(tree: Tree, seed: int, scale: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(
        len(tree.nodes), tree.vocabulary, generator=generator, dtype=torch.float64
    )


def some_rewards(tree: Tree, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(a), generator=generator, dtype=torch.float64) for a in tree.answers]


class TreeRole:
    """What roles over a tree share: log-probabilities from a table."""

    def __init__(self, tree: Tree, logits: Tensor) -> None:
        self.tree = tree
        self.logits = logits.clone().double()
        self.device, self.dtype = torch.device("cpu"), torch.float64

    def stats(self, batch: Trajectories) -> dict[str, Tensor]:
        """logp and entropy [B, T], and the logits of every token's node."""
        logp = self.tree.log_policy(self.logits)
        place = self.tree.places(batch)
        each = logp[place].gather(2, batch.token[:, :, None])[:, :, 0]
        filled = logp.masked_fill(~self.tree.allowed, 0.0)
        entropy = -(filled.exp() * filled * self.tree.allowed).sum(-1)[place]
        zero = torch.zeros_like(each)
        return {
            "logp": torch.where(batch.chosen, each, zero),
            "entropy": torch.where(batch.chosen, entropy, zero),
        }

    def logprobs(self, batch: Trajectories) -> Tensor:
        with torch.no_grad():
            return self.stats(batch)["logp"]

    def close(self) -> None: ...


class TreeActor(TreeRole):
    """A policy that is taught by gradient descent or Adam, in micro-batches of `micro` groups."""

    def __init__(
        self, tree: Tree, logits: Tensor, *, adam: bool = True, micro: int | None = None
    ) -> None:
        super().__init__(tree, logits)
        self.logits.requires_grad_(True)
        make = torch.optim.Adam if adam else torch.optim.SGD
        self.optimiser = make([self.logits], lr=1.0)
        self.micro = micro
        self.version = 0

    def generate(self, prompts, *, num_answers, sampling, seed, replier=None) -> Trajectories:
        batch = self.tree.draw(self.logits, prompts, num_answers, seed)
        return replace(batch, logp=self.logprobs(batch))

    def gradient(self, batch, loss, *, fields=None, denominator) -> dict[str, float]:
        """Leaves the loss's gradient on the logits; its numbers."""
        self.optimiser.zero_grad()
        told: dict[str, float] = {}
        for rows in self._parts(batch, loss):
            some = batch.select(rows)
            part = Part(
                some.chosen,
                some.logp,
                float(denominator),
                self.stats(some),
                cut(fields or {}, rows),
            )
            value, numbers = loss(part)
            value.backward()
            for name, x in numbers.items():
                told[name] = told.get(name, 0.0) + float(x)
        return told

    def _parts(self, batch, loss) -> list[list[int]]:
        every = list(range(len(batch)))
        if self.micro is None:
            return [every]
        if not loss.together:
            return [every[i : i + self.micro] for i in range(0, len(every), self.micro)]
        group = batch.group.tolist()
        groups = sorted(set(group))
        return [
            [row for row in every if group[row] in groups[i : i + self.micro]]
            for i in range(0, len(groups), self.micro)
        ]

    def update(self, batch, loss, *, fields=None, denominator, lr) -> dict[str, float]:
        told = self.gradient(batch, loss, fields=fields, denominator=denominator)
        self.optimiser.param_groups[0]["lr"] = lr
        self.optimiser.step()
        self.version += 1
        return {**told, "grad_norm": float(self.logits.grad.norm())}

    def state(self):
        found = {"logits": self.logits.detach().clone()}
        for name, x in self.optimiser.state.get(self.logits, {}).items():
            found[f"adam.{name}"] = torch.as_tensor(x).clone()
        return found, {"version": self.version}

    def restore(self, saved) -> None:
        with torch.no_grad():
            self.logits.copy_(saved[0]["logits"])
        adam = {n.removeprefix("adam."): x.clone() for n, x in saved[0].items() if "adam." in n}
        if adam:
            self.optimiser.state[self.logits] = adam
        self.version = int(saved[1]["version"])


class TreeJudge:
    """Scores of answers by tables, one for each measure; NaN abstains."""

    def __init__(
        self,
        tree: Tree,
        tables: Mapping[str, Sequence[Tensor]],
        weights: Sequence[float] | None = None,
    ) -> None:
        self.tree, self.tables = tree, tables
        self.names = tuple(tables)
        self.weights = tuple(weights or [1.0] * len(tables))

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        index = self.tree.index(batch)
        return {name: torch.cat(list(table))[index] for name, table in self.tables.items()}
