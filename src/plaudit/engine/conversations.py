"""Conversations of the policy with whoever answers it: turns drawn, replies read, one batch of both.

A conversation comes to its end where the replier says so; it is cut where a turn reaches the length
limit, where the turns or the context are used up. Replies are observations: they are there, and not
chosen. What the policy wrote is never encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from plaudit.models.answers import texts_of
from plaudit.models.sampling.conversation import Conversations
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Conversation, Message, Prompt, Replier, Trajectories

if TYPE_CHECKING:
    from plaudit.engine.shared import SharedBackbone


@dataclass
class _Row:
    """What has followed the prompt so far."""

    prompt: Prompt
    ids: list[int] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    terminated: bool = False

    def add_turn(self, ids: Sequence[int], logp: Sequence[float], text: str) -> None:
        self.ids += ids
        self.logp += logp
        self.chosen += [True] * len(ids)
        self.messages.append({"role": "assistant", "content": text})

    def add_reply(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.logp += [0.0] * len(ids)
        self.chosen += [False] * len(ids)


def converse(
    backbone: SharedBackbone,
    prompts: Sequence[Prompt],
    *,
    num_answers: int,
    sampling: Sampling,
    seed: int,
    replier: Replier,
    version: int,
) -> Trajectories:
    """`num_answers` conversations to each prompt; `sampling.max_new_tokens` bounds each turn.

    Raises UserError for a replier that gives another number of replies than it was asked for, or
    one that is no message.
    """
    codec = backbone.lm.codec
    rows = [_Row(prompt) for prompt in prompts for _ in range(num_answers)]
    talk = Conversations(backbone.sampler, [p.ids for p in prompts], num_answers=num_answers)
    for turn in range(replier.max_turns):
        drawn = talk.draw(sampling, seed=seed)
        lists = (drawn.answer.tolist(), drawn.logp.tolist(), drawn.mask.sum(1).tolist())
        for row, ids, logp, n in zip(talk.open, *lists, strict=True):
            rows[row].add_turn(ids[:n], logp[:n], codec.decode(ids[:n]))
        ended = [row for row, e in zip(talk.open, drawn.terminated.tolist(), strict=True) if e]
        replies = _replies(replier, ended, rows)
        for row, reply in replies.items():
            rows[row].terminated = reply is None
        said: dict[int, tuple[int, ...]] = {}
        for row, reply in replies.items():
            if reply is None or turn + 1 == replier.max_turns:
                continue
            messages = [*rows[row].messages, reply]
            ids = codec.reply_ids(rows[row].prompt, messages, last=rows[row].ids[-1])
            if len(talk.ids[row]) + len(ids) + sampling.max_new_tokens > codec.context:
                continue
            rows[row].messages = messages
            rows[row].add_reply(ids)
            said[row] = ids
        if not said:
            break
        talk.go_on(said)
    backbone.sampler.release()
    return _batch(backbone, prompts, rows, num_answers, sampling, version)


def _replies(
    replier: Replier, ended: Sequence[int], rows: Sequence[_Row]
) -> dict[int, Message | None]:
    """What is said to each row whose turn has come to its end."""
    if not ended:
        return {}
    asked = [Conversation(row, rows[row].prompt, tuple(rows[row].messages)) for row in ended]
    replies: Sequence[Any] = replier(asked)
    if len(replies) != len(ended):
        raise UserError(
            f"the replier gave {len(replies)} replies to {len(ended)} conversations: it must give "
            "one to each, or None where it has come to its end"
        )
    for reply in replies:
        if reply is not None and not (
            isinstance(reply, dict) and {"role", "content"} <= reply.keys()
        ):
            raise UserError(
                f'the replier gave {reply!r}: it must give {{"role": "user", "content": "..."}} or '
                "None"
            )
    return dict(zip(ended, replies, strict=True))


def _batch(
    backbone: SharedBackbone,
    prompts: Sequence[Prompt],
    rows: Sequence[_Row],
    num_answers: int,
    sampling: Sampling,
    version: int,
) -> Trajectories:
    device, double = backbone.device, backbone.dtype == torch.float64
    shape = (len(rows), max(len(row.ids) for row in rows))
    token = torch.full(shape, backbone.pad_id)
    there, chosen = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    logp = torch.zeros(shape, dtype=torch.float64 if double else torch.float32)
    for i, row in enumerate(rows):
        n = len(row.ids)
        token[i, :n] = torch.tensor(row.ids)
        there[i, :n] = True
        chosen[i, :n] = torch.tensor(row.chosen)
        logp[i, :n] = torch.tensor(row.logp, dtype=logp.dtype)
    terminated = torch.tensor([row.terminated for row in rows])
    return Trajectories(
        prompts=tuple(prompts),
        group=torch.arange(len(prompts)).repeat_interleave(num_answers),
        token=token,
        there=there,
        chosen=chosen,
        logp=logp,
        terminated=terminated,
        truncated=~terminated,
        version=torch.full((len(rows),), version),
        texts=texts_of(token, there, chosen, backbone.lm.codec),
        sampling=sampling,
    ).to(device)
