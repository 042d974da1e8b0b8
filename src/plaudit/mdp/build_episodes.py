"""The most likely world behind a log of episodes, with the counts it rests on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from plaudit.mdp.entries import (
    Entries,
    existing_file,
    in_order,
    json_lines,
    names_of,
    number_of,
)
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest

Ints: TypeAlias = NDArray[np.int64]

KEYS = ("states", "actions", "rewards", "terminated")


@dataclass(frozen=True)
class EpisodeWorld:
    """A world learned from episodes, and what was seen of it.

    counts [S·A, S] sparse, row s·A + a: how often each transition was seen; visits [S, A]: how
    often each action was tried, 0 where it does not exist in `mdp`; beginnings [S].
    """

    mdp: MDP
    counts: sparse.csr_array
    visits: Ints
    beginnings: Ints
    num_episodes: int


class _Episode(NamedTuple):
    states: list[Hashable]
    actions: list[Hashable]
    rewards: list[float]
    terminated: bool
    where: str


def from_episodes(episodes: str | Path | Iterable[Mapping[str, Any]], gamma: float) -> EpisodeWorld:
    """p(s'|s, a) = N(s, a, s') / N(s, a), r(s, a, s') its mean reward, beginnings likewise.

    episodes: a JSONL file with an episode a line, or mappings, each with `states` [T + 1],
    `actions` [T], `rewards` [T] and `terminated` (true if left out; false if it was cut off there,
    which makes its last state no end). States and actions are any names, numbered as they first
    stand, or as they say if all are 0, 1, 2, .... An action never tried in a state does not exist
    there. Raises UserError naming the file and line, or the episode: also where a state is both an
    end and left again, or is seen only where an episode was cut off.
    """
    log = list(_episodes(episodes))
    if not log:
        raise UserError(f"{_source(episodes)}: no episodes")
    number = in_order(s for episode in log for s in episode.states)
    acts = in_order(a for episode in log for a in episode.actions)
    if not acts:
        raise UserError(f"{_source(episodes)}: no episode has a step")
    _check_ends(log)
    beginnings = np.zeros(len(number), np.int64)
    count: dict[tuple[int, int, int], int] = {}
    paid: dict[tuple[int, int, int], float] = {}
    for episode in log:
        beginnings[number[episode.states[0]]] += 1
        for t, action in enumerate(episode.actions):
            key = (number[episode.states[t]], acts[action], number[episode.states[t + 1]])
            count[key] = count.get(key, 0) + 1
            paid[key] = paid.get(key, 0.0) + episode.rewards[t]
    counts, visits = _counted(count, len(number), len(acts))
    entries = Entries()
    for (s, a, to), times in count.items():
        entries.add(s, a, to, times / visits[s, a], paid[s, a, to] / times)
    world = entries.world(
        len(number),
        len(acts),
        gamma,
        initial=beginnings / beginnings.sum(),
        states=names_of(number),
        actions=names_of(acts),
    )
    return EpisodeWorld(world, counts, visits, beginnings, len(log))


def _counted(
    count: Mapping[tuple[int, int, int], int], num_states: int, num_actions: int
) -> tuple[sparse.csr_array, Ints]:
    s, a, to = np.array(list(count), dtype=np.int64).T
    times = np.array(list(count.values()), dtype=np.int64)
    shape = (num_states * num_actions, num_states)
    counts = sparse.csr_array((times, (s * num_actions + a, to)), shape=shape)
    return counts, np.asarray(counts.sum(axis=1)).reshape(num_states, num_actions)


def _check_ends(log: list[_Episode]) -> None:
    """Ends are never left, and every other state is left at least once."""
    left = {s for episode in log for s in episode.states[:-1]}
    ends = {e.states[-1]: e.where for e in log if e.terminated}
    for state, where in ends.items():
        if state in left:
            raise UserError(
                f"{where}: the episode ends in state {state!r}, which is left elsewhere; name ends "
                'by states of their own, or say "terminated": false where an episode is cut off'
            )
    for episode in log:
        last = episode.states[-1]
        if last not in left and last not in ends:
            raise UserError(
                f"{episode.where}: state {last!r} is seen only where an episode is cut off, so "
                "nothing is known of what follows it"
            )


def _source(episodes: Any) -> str:
    return str(episodes) if isinstance(episodes, str | Path) else "episodes"


def _episodes(given: str | Path | Iterable[Mapping[str, Any]]) -> Iterable[_Episode]:
    if isinstance(given, str | Path):
        path = existing_file(given)
        for line, episode in json_lines(path):
            yield _checked(episode, f"{path}, line {line}")
        return
    for i, episode in enumerate(given):
        yield _checked(episode, f"episode {i}")


def _checked(given: Any, where: str) -> _Episode:
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {type(given).__name__}; expected states, actions and rewards")
    for name in given:
        if name not in KEYS:
            raise UserError(f"{where}: unknown key {name!r}{nearest(str(name), KEYS)}")
    for name in KEYS[:3]:
        if name not in given:
            raise UserError(f"{where}: no {name!r}")
    states, actions, rewards = (list(given[name]) for name in KEYS[:3])
    if len(actions) != len(rewards) or len(states) != len(actions) + 1:
        raise UserError(
            f"{where}: {len(states)} states, {len(actions)} actions and {len(rewards)} rewards; "
            "expected one state more than actions, and as many rewards"
        )
    for kind, things in (("state", states), ("action", actions)):
        for t, thing in enumerate(things):
            if thing is None or isinstance(thing, list | dict | float):
                raise UserError(
                    f"{where}: {kind} {t} is {thing!r}; expected a name or a whole number"
                )
    terminated = given.get("terminated", True)
    if not isinstance(terminated, bool | np.bool_):
        raise UserError(f"{where}: terminated is {terminated!r}; expected true or false")
    paid = [number_of(r, f"{where}: reward {t}") for t, r in enumerate(rewards)]
    return _Episode(states, actions, paid, bool(terminated), where)
