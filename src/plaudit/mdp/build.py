"""Worlds from what people have: functions, a table in a file, a Gymnasium environment, a log.

    from_functions    rules written as Python functions over states of any kind
    from_table        CSV or JSONL with state, action, next_state, probability, reward
    from_gymnasium    an environment that shows its table `P`
    from_episodes     the most likely world behind episodes, with its counts

A state in which nothing can be done is an end. Where one state and action lead to one next state
in several ways, these become one transition with their mean reward.
"""

from __future__ import annotations

import csv
import inspect
import io
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plaudit.mdp.build_episodes import EpisodeWorld, from_episodes
from plaudit.mdp.build_gymnasium import from_gymnasium
from plaudit.mdp.entries import (
    Entries,
    check_sum,
    existing_file,
    in_order,
    initial_of,
    json_lines,
    names_of,
    number_of,
    probability_of,
)
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_text

__all__ = ["EpisodeWorld", "from_episodes", "from_functions", "from_gymnasium", "from_table"]

COLUMNS = ("state", "action", "next_state", "probability", "reward")
"""What a row of a table holds."""


# --- functions


def from_functions(
    states: Iterable[Hashable],
    actions: Iterable[Hashable],
    transition_fn: Callable[[Any, Any], Any],
    reward_fn: Callable[..., float],
    gamma: float,
    *,
    initial: Hashable | Mapping[Any, float] | None = None,
) -> MDP:
    """A world from its rules.

    transition_fn(s, a): {s': probability} or [(probability, s'), ...]; nothing (None or empty)
    where the action does not exist, and for every action where the world ends.
    reward_fn(s, a), or reward_fn(s, a, s') if it takes three.
    initial: a state, or {state: probability}. Names of states and actions are their texts.
    Raises UserError naming the state and the action of the first mistake.
    """
    number = _numbered(states, "states")
    acts = _numbered(actions, "actions")
    of_next = _takes_three(reward_fn)
    entries = Entries()
    for s, i in number.items():
        for a, j in acts.items():
            where = f"state {s!r}, action {a!r}"
            pairs = _pairs(transition_fn(s, a), where)
            check_sum(pairs, where)
            for probability, to in pairs:
                if to not in number:
                    hint = nearest(str(to), map(str, number))
                    raise UserError(f"{where}: next state {to!r} is not one of the states{hint}")
                paid = reward_fn(s, a, to) if of_next else reward_fn(s, a)
                entries.add(i, j, number[to], probability, number_of(paid, f"{where}: reward"))
    return entries.world(
        len(number),
        len(acts),
        gamma,
        initial=initial_of(initial, number),
        states=names_of(number),
        actions=names_of(acts),
    )


def _numbered(things: Iterable[Hashable], what: str) -> dict[Hashable, int]:
    number: dict[Hashable, int] = {}
    for thing in things:
        if thing in number:
            raise UserError(f"{what}: {thing!r} stands twice")
        number[thing] = len(number)
    if not number:
        raise UserError(f"{what}: there are none; a world needs at least one")
    return number


def _takes_three(function: Callable[..., float]) -> bool:
    try:
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(kind in plain for kind in kinds)
    if count not in (2, 3) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise UserError(f"reward_fn takes {count} arguments; expected (s, a) or (s, a, s')")
    return count == 3


def _pairs(given: Any, where: str) -> list[tuple[float, Hashable]]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        found = [(probability, to) for to, probability in given.items()]
    else:
        try:
            found = [(probability, to) for probability, to in given]
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: transition_fn gave {given!r}; expected {{next state: probability}} or "
                "[(probability, next state), ...]"
            ) from None
    return [(probability_of(probability, where), to) for probability, to in found]


# --- a table


def from_table(
    table: str | Path | Iterable[Mapping[str, Any]],
    gamma: float,
    *,
    initial: Hashable | Mapping[Any, float] | None = None,
) -> MDP:
    """A world from rows of state, action, next_state, probability, reward.

    table: a CSV file with that header, a JSONL file with these keys, or rows as mappings. A state
    that is only a next_state is an end; an action that has no row in a state does not exist there.
    States and actions are numbered as they first stand, or as they say if all are 0, 1, 2, ...
    initial: a state, or {state: probability}, as written in the table.
    Raises UserError naming the file and the line.
    """
    rows = list(_table_rows(table))
    if not rows:
        raise UserError(f"{_source(table)}: no rows; expected {', '.join(COLUMNS)}")
    number = in_order([row["state"] for _, row in rows] + [row["next_state"] for _, row in rows])
    acts = in_order([row["action"] for _, row in rows])
    entries, seen, sums = Entries(), dict[Any, str](), dict[Any, list[tuple[float, str]]]()
    for where, row in rows:
        key = (row["state"], row["action"], row["next_state"])
        if key in seen:
            raise UserError(
                f"{where}: state {key[0]}, action {key[1]}, next_state {key[2]} stands already in "
                f"{seen[key]}"
            )
        seen[key] = where
        probability = probability_of(row["probability"], where)
        reward = number_of(row["reward"], f"{where}: reward")
        sums.setdefault(key[:2], []).append((probability, where))
        entries.add(number[key[0]], acts[key[1]], number[key[2]], probability, reward)
    for (state, action), parts in sums.items():
        check_sum(parts, f"{parts[0][1]}: state {state}, action {action}")
    said = {str(thing): i for thing, i in number.items()}
    begin = {str(s): p for s, p in initial.items()} if isinstance(initial, Mapping) else initial
    if begin is not None and not isinstance(begin, Mapping):
        begin = str(begin)
    return entries.world(
        len(number),
        len(acts),
        gamma,
        initial=initial_of(begin, said),
        states=names_of(number),
        actions=names_of(acts),
    )


def _source(table: Any) -> str:
    return str(table) if isinstance(table, str | Path) else "table"


def _table_rows(table: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """(where it stands, row) of each row, its columns checked; states and actions as texts or int."""
    if not isinstance(table, str | Path):
        for i, row in enumerate(table):
            yield _checked(row, f"table, row {i}")
        return
    path = existing_file(table)
    if path.suffix in (".jsonl", ".json"):
        for line, row in json_lines(path):
            yield _checked(row, f"{path}, line {line}")
        return
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: not as many values as the header has columns")
            yield _checked({k.strip(): v.strip() for k, v in row.items()}, where)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _checked(row: Any, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: {row!r}; expected the keys {', '.join(COLUMNS)}")
    unknown = [name for name in row if name not in COLUMNS]
    for name in COLUMNS:
        if name not in row:
            hint = f"; {unknown[0]!r} is not known" if unknown else ""
            raise UserError(f"{where}: no column {name!r}{hint}")
    if unknown:
        raise UserError(f"{where}: unknown column {unknown[0]!r}{nearest(unknown[0], COLUMNS)}")
    for name in ("state", "action", "next_state"):
        if row[name] is None or row[name] == "" or isinstance(row[name], list | dict | float):
            raise UserError(f"{where}: {name} is {row[name]!r}; expected a name or a whole number")
    texts = {name: str(row[name]) for name in ("state", "action", "next_state")}
    return where, {**row, **texts}
