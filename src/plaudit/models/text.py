"""Text to tokens and back: the only place that knows templates, special tokens and padding.

    prompt ids      = encode(template(messages, with generation prompt))
    completion ids  = what the template's rendering of the answer adds to them, up to and with the
                      token that ends the turn

Ids are those a sampler would meet: a chat template writes its own BOS, so the tokenizer adds none;
plain text (template "none") gets the BOS of a tokenizer that has one, once. Padding is told by a
mask everywhere, so the pad id never decides a number, also where it equals a stop token.
Left out: images, tools, and several templates in one tokenizer (the one named "default" is used).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_text
from plaudit.records.turns import canonical_messages
from plaudit.records.types import Message, Prompt, Text

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The turn format that `template="chatml"` names."""

NO_TEMPLATE = (
    "this model's tokenizer has no chat template: give template='none' for plain text, 'chatml', "
    "or the path of a Jinja file"
)

_OPENED = re.compile(r"<([A-Za-z]\w*)>\s*$")

_PROBE = "plaudit-probe"  # an answer that no template can contain by itself


@dataclass(frozen=True)
class TurnsPrompt(Prompt):
    """A prompt that remembers its messages and how they were `rendered`, so that it can be completed."""

    messages: tuple[Message, ...] = ()
    rendered: str = ""


@dataclass(frozen=True)
class TextCodec:
    """A fast tokenizer with its template and what ends an answer.

    `template` is Jinja text, or None for plain text. `tail` is what the template writes after an
    answer, `lead` the part of it before `end_of_turn`, the stop token that a training example ends
    with. `stop_ids` end an answer wherever they are drawn. `context` is the most tokens the model
    can place.
    """

    tokenizer: Any
    template: str | None
    tail: str
    lead: str
    end_of_turn: int
    stop_ids: frozenset[int]
    pad_id: int
    context: int

    @classmethod
    def build(
        cls,
        tokenizer: Any,
        *,
        eos_ids: Iterable[int] = (),
        context: int,
        template: str | None = None,
    ) -> TextCodec:
        """A codec around `tokenizer`; `eos_ids` are the model's own stop tokens.

        `template`: None for the tokenizer's own, "none" for plain text, "chatml", the path of a
        Jinja file, or Jinja text. Raises UserError where there is no template or no stop token.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: the folder needs a "
                "tokenizer.json"
            )
        jinja = _template(tokenizer, template)
        if jinja is not None and template is not None:
            tokenizer.chat_template = jinja  # travels with the model when it is saved
        own = tokenizer.eos_token_id
        stops = set(eos_ids) | (set() if own is None else {int(own)})
        tail, lead, end = ("", "", None) if jinja is None else _end_of_turn(tokenizer, jinja)
        if end is not None:
            stops.add(end)
        if not stops:
            raise UserError(
                "the model names no token that ends an answer: set eos_token in "
                "tokenizer_config.json or eos_token_id in generation_config.json"
            )
        if end is None:
            end = min(stops) if own is None else int(own)
        pad = tokenizer.pad_token_id
        return cls(
            tokenizer=tokenizer,
            template=jinja,
            tail=tail,
            lead=lead,
            end_of_turn=end,
            stop_ids=frozenset(stops),
            pad_id=end if pad is None else int(pad),
            context=context,
        )

    def prompt(self, text: Text, columns: Mapping[str, Any] | None = None) -> TurnsPrompt:
        """The prompt's ids, ready for an answer; `text` is one user turn or a list of messages.

        `Prompt.text` keeps what a person wrote, without the template. Raises UserError for an
        empty prompt, messages of the wrong form, or turns that the template refuses.
        """
        messages = _messages(text)
        rendered = self._render_prompt(messages)
        ids = tuple(self._encode_start(rendered))
        readable = _readable(text, messages)
        return TurnsPrompt(readable, ids, dict(columns or {}), tuple(messages), rendered)

    def completion_ids(self, prompt: Text | Prompt, completion: str) -> tuple[int, ...]:
        """The token ids of a given answer after `prompt`, with the token that ends the turn.

        They are the ids that the template's rendering of the whole conversation has after the
        prompt's. Where a token would span the seam (a prompt ending inside a word) the answer is
        encoded on its own, since a sampler meets the prompt's ids as they are.
        Raises UserError where the template renders the prompt differently once it is answered, or
        where the answer holds a stop token.
        """
        asked = prompt
        if not isinstance(asked, TurnsPrompt):
            asked = self.prompt(self._messages_of(prompt))
        before, start = asked.rendered, list(asked.ids)
        after = self._render_answer(list(asked.messages), completion, before)
        whole = self._encode_start(before + after)
        rest = whole[len(start) :]
        if whole[: len(start)] != start:
            rest = self._encode(after)
            if self._text_of([*start, *rest]) != self._text_of(whole):
                raise UserError(
                    f"the tokenizer cannot continue {_short(before[-40:])} with {_short(after)}: "
                    "end the prompt where a word ends"
                )
        held = self.stop_ids & set(rest)
        if held:
            names = ", ".join(sorted(self.tokenizer.convert_ids_to_tokens(i) for i in held))
            raise UserError(
                f"the completion {_short(completion)} holds {names}, which would end it early: "
                "leave stop tokens out of completions"
            )
        return (*rest, self.end_of_turn)

    def reply_ids(self, prompt: Prompt, said: Sequence[Message], *, last: int) -> tuple[int, ...]:
        """What stands between two turns of the policy: the ids that the template writes after its
        turn and the messages that answer it, up to the opening of the next.

        `said` are all messages since the prompt, the policy's and others'; those after its last are
        the reply. `last` is the token that its turn ended with, which stays as it was drawn.
        Raises UserError for plain text, and where the template does not write turns one by one.
        """
        if self.template is None:
            raise UserError(
                "a conversation of several messages needs a chat template, "
                "but template='none' was asked for"
            )
        own = max(i for i, message in enumerate(said) if message["role"] == "assistant")
        turns = [*self._messages_of(prompt), *said]
        turns[len(turns) - len(said) + own] = {"role": "assistant", "content": _PROBE}
        whole = render(self.tokenizer, self.template, turns, generation_prompt=True)
        _, found, after = whole.rpartition(_PROBE)
        if not found:
            raise UserError(
                "the chat template leaves out the assistant's turns before the last, so a "
                "conversation cannot go on behind them: give another by --template"
            )
        ids = self._encode(after)
        place = ids.index(self.end_of_turn) if self.end_of_turn in ids else -1
        return tuple(ids[place + 1 :] if last == self.end_of_turn else ids[max(place, 0) :])

    def decode(self, ids: Sequence[int]) -> str:
        """The answer's text: a closing stop token and all special tokens are dropped."""
        kept = list(ids)
        if kept and kept[-1] in self.stop_ids:
            kept.pop()
        text: str = self.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def fits(self, prompt: Prompt, max_new_tokens: int, *, row: int | None = None) -> None:
        """Raise UserError, naming `row`, unless the prompt leaves room for the new tokens."""
        if len(prompt.ids) + max_new_tokens > self.context:
            name = "the prompt" if row is None else f"prompt {row}"
            raise UserError(
                f"{name} has {len(prompt.ids):,} tokens, which with {max_new_tokens:,} new ones "
                f"exceeds the model's context of {self.context:,}"
            )

    def _messages_of(self, prompt: Text | Prompt) -> list[Message]:
        if isinstance(prompt, TurnsPrompt):
            return list(prompt.messages)
        if not isinstance(prompt, Prompt):
            return _messages(prompt)
        messages = _messages(prompt.text)
        if tuple(self._encode_start(self._render_prompt(messages))) != prompt.ids:
            raise UserError(
                f"the ids of the prompt {_short(prompt.text)} are not those of its text: give the "
                "messages it was made from"
            )
        return messages

    def _render_prompt(self, messages: list[Message]) -> str:
        if self.template is None:
            if len(messages) > 1:
                raise UserError(
                    "a conversation of several messages needs a chat template, "
                    "but template='none' was asked for"
                )
            return messages[0]["content"]
        return render(self.tokenizer, self.template, messages, generation_prompt=True)

    def _render_answer(self, messages: list[Message], completion: str, before: str) -> str:
        """What the rendering adds once the prompt is answered, up to the end of the turn."""
        if self.template is None:
            return completion
        answered = [*messages, {"role": "assistant", "content": completion}]
        whole = render(self.tokenizer, self.template, answered, generation_prompt=False)
        if whole.endswith(self.tail):
            if whole.startswith(before):
                return whole[len(before) : len(whole) - len(self.tail)] + self.lead
            opened = _OPENED.search(before)
            if opened and whole.startswith(before[: opened.start()]):
                # Only the generation prompt opens "<think>": a sampler's answer stands right after
                # that, and so must a given one.
                return completion + self.lead
        raise UserError(
            "the chat template writes an answered prompt differently from the prompt alone "
            f"(after {_short(before[-40:])}), so completions cannot be trained with it: "
            "give another by --template"
        )

    @cached_property
    def opened(self) -> str:
        """The tag that the generation prompt opens and an answer must close, "" for none: think."""
        if self.template is None:
            return ""
        found = _OPENED.search(self._render_prompt(_messages("Hi")))
        return found[1] if found else ""

    def require_closed(self, prompt: Text | Prompt, completion: str) -> None:
        """Raise UserError unless a given answer closes what the generation prompt has opened."""
        if not self.opened or f"</{self.opened}>" in completion:
            return
        messages = self._messages_of(prompt)
        after = self._render_answer(messages, completion, self._render_prompt(messages))
        if f"</{self.opened}>" not in after:
            raise UserError(
                f"the chat template's generation prompt opens <{self.opened}>, which the answer "
                f"{_short(completion)} does not close: write it as the model would, with its "
                f"reasoning and </{self.opened}>, or give a template that opens nothing (--template)"
            )

    def _text_of(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, text: str) -> list[int]:
        return _encode(self.tokenizer, text)

    def start_ids(self, text: str) -> list[int]:
        """Ids of a plain text, BOS included where the tokenizer has one."""
        return replace(self, template=None)._encode_start(text)

    def _encode_start(self, text: str) -> list[int]:
        """Ids of a text that starts a sequence: BOS once, if plain text should have it."""
        ids = self._encode(text)
        bos = self.tokenizer.bos_token_id
        if self.template is None and bos is not None:
            adds_bos = self.tokenizer("", verbose=False)["input_ids"][:1] == [bos]
            if adds_bos and ids[:1] != [bos]:
                return [bos, *ids]
        return ids


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with padding before each row, and the mask [B, T], true on real tokens."""
    return _padded(rows, pad_id, left=True)


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with padding after each row, and the mask [B, T], true on real tokens."""
    return _padded(rows, pad_id, left=False)


def _padded(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = longest - len(row) if left else 0
        ids[i, start : start + len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, start : start + len(row)] = True
    return ids, mask


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _template(tokenizer: Any, wanted: str | None) -> str | None:
    if wanted == "none":
        return None
    if wanted == "chatml":
        return CHATML
    if wanted is None:
        own = tokenizer.chat_template
        if isinstance(own, Mapping):
            own = own.get("default")
        if not own:
            raise UserError(NO_TEMPLATE)
        return str(own)
    if "{{" in wanted or "{%" in wanted:
        return wanted
    if not Path(wanted).is_file():
        raise UserError(
            f"there is no template file {wanted!r}: give 'none', 'chatml' or the path of a Jinja "
            f"file{nearest(wanted, ('none', 'chatml'))}"
        )
    return read_text(Path(wanted))


def render(
    tokenizer: Any, template: str, messages: list[Message], *, generation_prompt: bool
) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"the chat template refuses the messages ({roles}): {str(error).rstrip('.')}"
        ) from error
    return text


def _end_of_turn(tokenizer: Any, template: str) -> tuple[str, str, int | None]:
    """What `template` writes after an answer; the part before its first special token; the token.

    Without a special token there the answer's end is not marked: ("…", "", None).
    """
    turns: list[Message] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": _PROBE},
    ]
    rendered = render(tokenizer, template, turns, generation_prompt=False)
    _, found, tail = rendered.rpartition(_PROBE)
    if not found:
        raise UserError("the chat template does not write what the assistant says")
    specials = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    end = next((i for i in _encode(tokenizer, tail) if i in specials), None)
    lead = "" if end is None else tail[: tail.index(specials[end])]
    return tail, lead, end


def _messages(text: Text) -> list[Message]:
    """One user turn for plain text; otherwise the messages, checked, without fields that are null."""
    turns: list[Any] = [{"role": "user", "content": text}] if isinstance(text, str) else list(text)
    for number, turn in enumerate(turns, start=1):
        fields = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None,)
        if not all(isinstance(field, str) for field in fields):
            raise UserError(
                f"message {number} of a prompt must be "
                f'{{"role": "...", "content": "..."}}, but it is {_short(str(turn))}'
            )
    if not turns or not turns[-1]["content"].strip():
        raise UserError("the prompt is empty")
    if turns[-1]["role"] == "assistant":
        raise UserError(
            "the prompt ends with a turn of the assistant: put that turn in the completion"
        )
    return canonical_messages(turns)


def _readable(text: Text, messages: list[Message]) -> str:
    if isinstance(text, str):
        return text
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
