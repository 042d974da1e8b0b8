"""How a row of each published chat format is known and read: HH-RLHF, ShareGPT, OpenAI, Alpaca, UltraFeedback.

Each reader takes a row and gives our columns, or raises UserError with the column that is wrong.
Sources: anthropics/hh-rlhf; hiyouga/LLaMA-Factory, data/README.md (ShareGPT, Alpaca); OpenAI's guides to
fine-tuning; openbmb/UltraFeedback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plaudit.records.columns import KINDS, parse_number
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, brief
from plaudit.records.turns import (
    TRANSCRIPT,
    is_messages,
    require_prompt,
    sharegpt_messages,
    split_last_answer,
    split_pair,
    transcript_messages,
)


def is_transcript(text: object) -> bool:
    """Whether a text has turns of a human and of an assistant, as HH-RLHF writes them."""
    return isinstance(text, str) and bool(TRANSCRIPT.match(text)) and "\n\nAssistant:" in text


def own_transcripts(names: Sequence[str], row: Row) -> Row:
    """Our columns where the prompt is a transcript that waits for an answer."""
    turns = transcript_messages(row["prompt"], "prompt")
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    made: Row = {"prompt": require_prompt(turns, "'prompt'")}
    for name in set(names) & {"chosen", "rejected", "completion"}:
        if isinstance(row.get(name), str):
            whole = is_transcript(row[name])
            made[name] = transcript_messages(row[name], name) if whole else row[name].strip()
    return made


def own_turns(names: Sequence[str], row: Row) -> Row:
    """Our columns where texts are lists of turns with from and value."""
    lists = {name: row[name] for name in names if isinstance(row.get(name), list | tuple)}
    return {name: _any_messages(value, name) for name, value in lists.items()}


# --- comparisons ---------------------------------------------------------------------------


def texts(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def hh(row: Row) -> Row:
    pair = (transcript_messages(row[name], name) for name in ("chosen", "rejected"))
    return _said(*split_pair(*pair))


def conversations(row: Row) -> Row:
    pair = (_checked(row[name], name) for name in ("chosen", "rejected"))
    return dict(zip(KINDS["preference"], split_pair(*pair), strict=True))


def sharegpt_pair(row: Row) -> Row:
    prompt = _sharegpt_turns(row, last="the user's")
    answers = []
    for name in ("chosen", "rejected"):
        turn = _any_messages([row[name]], name)[0]
        if turn["role"] != "assistant":
            raise UserError(f"{name!r} is a turn of {turn['role']!r}, expected the assistant's")
        answers.append(turn["content"])
    return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}


def openai_pair(row: Row) -> Row:
    prompt = _checked(row["input"]["messages"], "input.messages")
    made: Row = {"prompt": require_prompt(prompt, "'input.messages'")}
    for ours, theirs in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
        turns = _checked(row[theirs], theirs)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise UserError(f"{theirs!r} has {len(turns)} turns, expected one of the assistant")
        made[ours] = turns
    return made


def alpaca_pair(row: Row) -> Row:
    return alpaca_prompt(row) | {"chosen": row["chosen"], "rejected": row["rejected"]}


def _said(prompt: Any, chosen: Any, rejected: Any) -> Row:
    return {
        "prompt": prompt,
        "chosen": chosen[0]["content"],
        "rejected": rejected[0]["content"],
    }


# --- scores --------------------------------------------------------------------------------


def is_ultrafeedback(row: Row) -> bool:
    return (
        texts(row, "instruction")
        and is_messages(row.get("completions"), "response")
        and all("overall_score" in one or "annotations" in one for one in row["completions"])
    )


def ultrafeedback(row: Row) -> Row:
    scores = []
    for number, one in enumerate(row["completions"], start=1):
        rated = one.get("annotations") or {}
        ratings = {"overall_score": one.get("overall_score")}
        if ratings["overall_score"] is None:
            ratings = {name: aspect.get("Rating") for name, aspect in rated.items()}
        if not ratings:
            raise UserError(f"'completions' {number} has neither overall_score nor annotations")
        values = [_number(value, f"'completions' {number} {n}") for n, value in ratings.items()]
        scores.append(sum(values) / len(values))
    texts = [one["response"] for one in row["completions"]]
    return {"prompt": row["instruction"], "completions": texts, "scores": scores}


def _number(value: Any, what: str) -> float:
    """A rating as a number; UltraFeedback writes those of its aspects as texts."""
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{what} is {brief(value)}, expected a number")
    return number


# --- demonstrations and prompts ------------------------------------------------------------


def is_sharegpt(row: Row) -> bool:
    turns = row.get("conversations")
    return is_messages(turns, "from") or is_messages(turns, "role")


def has_pair(row: Row) -> bool:
    return isinstance(row.get("chosen"), Mapping) and isinstance(row.get("rejected"), Mapping)


def _any_messages(turns: Any, name: str) -> list[Any]:
    return _checked(turns, name) if is_messages(turns, "role") else sharegpt_messages(turns, name)


def _sharegpt_turns(row: Row, *, last: str) -> list[Any]:
    turns = _any_messages(row["conversations"], "conversations")
    turns = [*_system(row), *turns]
    return require_prompt(turns, "'conversations'") if last == "the user's" else turns


def sharegpt_example(row: Row) -> Row:
    turns = _sharegpt_turns(row, last="the assistant's")
    return dict(
        zip(("prompt", "completion"), split_last_answer(turns, "conversations"), strict=True)
    )


def sharegpt_whole(row: Row) -> Row:
    return {"messages": _sharegpt_turns(row, last="the assistant's")}


def sharegpt_prompt(row: Row) -> Row:
    return {"prompt": _sharegpt_turns(row, last="the user's")}


def messages_example(row: Row) -> Row:
    turns = _checked(row["messages"], "messages")
    if turns[-1].get("weight") == 0:
        raise UserError("'messages': the last turn has weight 0, so there is nothing to learn")
    return dict(zip(("prompt", "completion"), split_last_answer(turns, "messages"), strict=True))


def messages_prompt(row: Row) -> Row:
    return {"prompt": require_prompt(_checked(row["messages"], "messages"), "'messages'")}


def _checked(turns: Any, name: str) -> list[Any]:
    """Messages whose every turn has a role and a content that are texts."""
    if not isinstance(turns, list | tuple) or not turns:
        raise UserError(f"{name!r} is {brief(turns)}, expected a list of messages")
    for number, turn in enumerate(turns, start=1):
        if not is_messages([turn], "role", "content"):
            raise UserError(
                f"{name!r} message {number} is {brief(turn)}, expected a role and a content that "
                "are texts"
            )
    return [dict(turn) for turn in turns]


def _optional_text(row: Row, name: str) -> str:
    """A column that may be absent, null or empty, and is a text otherwise."""
    value = row.get(name)
    if not isinstance(value, str | None):
        raise UserError(f"{name!r} is {brief(value)}, expected a text")
    return value or ""


def _system(row: Row) -> list[Any]:
    """The system turn of a column `system`, if it says anything."""
    said = _optional_text(row, "system")
    return [{"role": "system", "content": said}] if said.strip() else []


def alpaca_prompt(row: Row) -> Row:
    """The instruction and, on the next line, the input; LLaMA-Factory's order of turns."""
    given = _optional_text(row, "input")
    if not texts(row, "instruction"):
        raise UserError(f"'instruction' is {brief(row['instruction'])}, expected a text")
    text = f"{row['instruction']}\n{given}" if given else row["instruction"]
    turns = _system(row)
    for question, answer in row.get("history") or ():
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": answer})
    return {"prompt": [*turns, {"role": "user", "content": text}] if turns else text}


def alpaca_example(row: Row) -> Row:
    return alpaca_prompt(row) | {"completion": row["output"]}


def alpaca_prompt_alone(row: Row) -> Row:
    """The prompt; what was the wanted answer stays, as reward functions may compare with it."""
    return alpaca_prompt(row) | ({"output": row["output"]} if "output" in row else {})
