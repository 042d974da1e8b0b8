"""Whole conversations as tokens: the template's own ids, and which of them are learned.

The oracle reads the rendered text: a regular expression of each template finds the assistant's turns,
and a token is learned where its characters lie in one.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.models.answers import Given
from plaudit.models.conversations import learned_turns, plain_text, verdict
from plaudit.models.text import TextCodec
from plaudit.records.errors import UserError
from plaudit.records.types import Prompt
from tiny_models import CHATML, tiny_tokenizer


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


TALK = [
    user("What is the capital of France?"),
    assistant("The capital of France is Paris."),
    user("A river?"),
    assistant("é 🙂\n\n  wide"),
    user("good"),
    assistant(" Paris"),
]

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|header|>' + m.role + '<|/header|>\n\n' "
    "+ m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate') }}{% endif %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim "
    "+ '</turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + "
    "'[/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
SPACED_END = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '\n<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
UNENDED = (
    "{% for m in messages %}{{ '## ' + m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '## assistant:' }}{% endif %}"
)

# Qwen3's way: reasoning stays in the last turn alone.
FORGETFUL = (
    "{% for m in messages %}{% set said = m.content %}"
    "{% if m.role == 'assistant' and not loop.last %}{% set said = said.split('</think>')[-1] %}"
    "{% endif %}{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# And the empty reasoning that it writes into the last turn, whatever it holds.
EMPTY_THOUGHT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last and '<think>' not in m.content %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

FORMS: dict[str, tuple[str, str | None, str]] = {
    "chatml": ("chatml", None, r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "qwen": ("qwen", None, r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "pad": ("pad", None, r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "bos": ("bos", None, r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
    "sentencepiece": ("sentencepiece", None, r"\[/INST\](.*?</s>)"),
    "llama3": ("bos", LLAMA3, r"assistant<\|/header\|>\n\n(.*?<\|eot\|>)"),
    "gemma": ("bos", GEMMA, r"<turn>model\n(.*?</turn>)"),
    "mistral": ("bos", MISTRAL, r"\[/INST\](.*?<\|im_end\|>)"),
    "spaced-end": ("chatml", SPACED_END, r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"),
}
"""A tokenizer's family, a template, and where in its renderings the assistant speaks."""


@functools.cache
def codec(family: str, template: str | None = None) -> TextCodec:
    tokenizer = tiny_tokenizer(family)  # type: ignore[arg-type]
    if template in (LLAMA3, GEMMA, MISTRAL):
        specials = re.findall(r"<\|?/?(?:header|eot|turn)\|?>|\[/?INST\]", template)
        tokenizer.add_tokens(sorted(set(specials)), special_tokens=True)
    return TextCodec.build(tokenizer, context=512, template=template)


def chosen_of(given: Given) -> list[bool]:
    return list(given.chosen or (True,) * len(given.ids))


def runs(c: TextCodec, given: Given) -> list[str]:
    """The text of each run of learned tokens."""
    found: list[list[int]] = [[]]
    for token, own in zip(given.ids, chosen_of(given), strict=True):
        if own:
            found[-1].append(token)
        elif found[-1]:
            found.append([])
    return [c.tokenizer.decode(ids) for ids in found if ids]


def expected(c: TextCodec, turns: list[dict[str, Any]], form: str) -> tuple[list[int], list[bool]]:
    """The template's own ids, and by the form's expression whether each is the assistant's."""
    rendered = c.tokenizer.apply_chat_template(turns, tokenize=False)
    found = c.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    spans = [match.span(1) for match in re.finditer(form, rendered, re.DOTALL)]
    own = [
        any(low <= begin and end <= high for low, high in spans)
        for begin, end in found["offset_mapping"]
    ]
    ids = c.tokenizer.apply_chat_template(turns, return_dict=False)
    assert ids == found["input_ids"]
    return ids, own


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("num", [2, 4, 6])
def test_ids_are_the_templates_own_and_the_assistants_turns_are_learned(name, num):
    family, template, form = FORMS[name]
    c, turns = codec(family, template), TALK[:num]
    prompt, learned = learned_turns(c, turns)
    ids, own = expected(c, turns, form)
    at, n = len(prompt.ids), len(prompt.ids) + len(learned.ids)
    assert [*prompt.ids, *learned.ids] == ids[:n]
    assert c.tokenizer.decode(ids[n:]).strip() == ""
    assert chosen_of(learned) == own[at:n]
    assert not any(own[:at])
    assert prompt == c.prompt(turns[:1])
    assert learned.ids[-1] == c.end_of_turn
    assert [text.strip()[-4:] for text in runs(c, learned)] == [c.tokenizer.decode([c.end_of_turn])[-4:]] * (num // 2)  # fmt: skip


def test_by_hand():
    """Ho | is learned with its end, the user's turn and the next opening are not."""
    c = codec("chatml")
    one = c.tokenizer.convert_tokens_to_ids
    start, end = one("<|im_start|>"), one("<|im_end|>")
    words = functools.partial(c.tokenizer.encode, add_special_tokens=False)
    turns = [system("S"), user("Hi"), assistant("Ho"), user("A"), assistant("B"), user("C")]
    prompt, learned = learned_turns(c, turns)
    line = words("\n")
    between = [*line, start, *words("user\nA"), end, *line, start, *words("assistant\n")]
    assert list(learned.ids) == [*words("Ho"), end, *between, *words("B"), end]
    ho, b = len(words("Ho")) + 1, len(words("B")) + 1
    assert chosen_of(learned) == [True] * ho + [False] * len(between) + [True] * b
    opening = [start, *words("system\nS"), end, *line, start, *words("user\nHi"), end, *line]
    assert list(prompt.ids) == [*opening, start, *words("assistant\n")]


contents = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=4), st.booleans())
def test_what_is_learned_is_what_was_said(talk, with_system):
    """Any text, at its beginning and end too, in a template that writes it as it is."""
    c = codec("chatml")
    turns = [system("Be brief.")] * with_system
    for asked, said in talk:
        if not asked.strip():
            return
        turns += [user(asked), assistant(said)]
    prompt, learned = learned_turns(c, turns)
    assert runs(c, learned) == [f"{said}<|im_end|>" for _, said in talk]
    rendered = c.tokenizer.apply_chat_template(turns, tokenize=False)
    assert c.tokenizer.decode([*prompt.ids, *learned.ids]) == rendered.removesuffix("\n")


def marked(inside: str, outside: str = "") -> str:
    """ChatML with generation marks around some of an assistant's turn."""
    return CHATML.replace(
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}",
        "{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        f"{{% generation %}}{{{{ {inside} }}}}{{% endgeneration %}}{{{{ {outside or repr('')} }}}}"
        "{% else %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
        "+ '<|im_end|>' + '\\n' }}{% endif %}",
    )


@pytest.mark.parametrize("family", ["chatml", "qwen", "pad"])
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("message['content'] + '<|im_end|>'", "'\\n'"),
        ("message['content'] + '<|im_end|>\\n'", ""),
        ("message['content']", "'<|im_end|>\\n'"),
    ],
    ids=["end inside", "line break inside", "end outside"],
)
def test_generation_marks_say_the_same_as_prefixes(family, inside, outside):
    """The end is learned wherever marks put it, and a line break behind it never is."""
    c = codec(family, marked(inside, outside))
    assert verdict(c).is_marked
    for turns in (TALK, TALK[:2], [system("S"), *TALK[:4]]):
        assert learned_turns(c, turns) == learned_turns(codec(family), turns)


def test_marks_that_hold_more_than_what_is_drawn():
    """The opening, which the generation prompt writes, and a second special token behind the end."""
    whole = marked("message['content'] + '<|im_end|>'", "'\\n'").replace(
        "{{ '<|im_start|>assistant\\n' }}{% generation %}",
        "{% generation %}{{ '<|im_start|>assistant\\n' }}",
    )
    assert learned_turns(codec("chatml", whole), TALK) == learned_turns(codec("chatml"), TALK)
    c = codec("chatml", marked("message['content'] + '<|im_end|><|endoftext|>\\n'"))
    _, learned = learned_turns(c, TALK)
    assert runs(c, learned) == [f"{TALK[i]['content']}<|im_end|>" for i in (1, 3, 5)]
    assert learned.ids.count(c.tokenizer.convert_tokens_to_ids("<|endoftext|>")) == 2


def test_earlier_turns_may_end_with_another_stop_token_than_the_last():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{{ '<|im_end|>' if loop.last else '<|endoftext|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|endoftext|><|im_start|>assistant\n' }}{% endif %}"
    )
    template = template.replace("'<|im_end|>' if loop.last", "'' if add_generation_prompt and loop.last else '<|im_end|>' if loop.last")  # fmt: skip
    c = TextCodec.build(tiny_tokenizer("chatml"), eos_ids=[0], context=512, template=template)
    _, learned = learned_turns(c, TALK[:4])
    ends = ("<|endoftext|>", "<|im_end|>")
    assert runs(c, learned) == [
        TALK[i]["content"] + end for i, end in zip((1, 3), ends, strict=True)
    ]


def test_marks_that_leave_turns_out_are_refused():
    template = marked("message['content'] + '<|im_end|>'", "'\\n'")
    none_but_last = template.replace("{% generation %}", "{% if loop.last %}{% generation %}")
    none_but_last = none_but_last.replace("{% endgeneration %}", "{% endgeneration %}{% endif %}")
    c = codec("chatml", none_but_last)
    with pytest.raises(UserError, match="marks mark 1 turns of the assistant, but it has 3"):
        learned_turns(c, TALK)


def test_a_template_that_drops_earlier_reasoning_is_refused_with_the_message():
    c = codec("chatml", FORGETFUL)
    thought = [user("Hi"), assistant("<think>hm</think>Ho"), user("Well?"), assistant("So")]
    with pytest.raises(UserError, match=r"writes message 2 \(the assistant's\) differently once"):
        learned_turns(c, thought)
    # Without reasoning nothing is dropped, and one turn alone keeps its own.
    assert learned_turns(c, TALK) == learned_turns(codec("chatml"), TALK)
    _, learned = learned_turns(c, thought[:2])
    assert runs(c, learned) == ["<think>hm</think>Ho<|im_end|>"]
    marks = FORGETFUL.replace(
        "+ said + '<|im_end|>\n' }}",
        "}}{% if m.role == 'assistant' %}{% generation %}{{ said }}{% endgeneration %}"
        "{% else %}{{ said }}{% endif %}{{ '<|im_end|>\n' }}",
    )
    assert learned_turns(codec("chatml", marks), TALK) == learned_turns(c, TALK)
    with pytest.raises(UserError, match="writes message 2"):
        learned_turns(codec("chatml", marks), thought)


def test_a_template_that_writes_only_into_the_last_turn_is_refused():
    c = codec("chatml", EMPTY_THOUGHT)
    with pytest.raises(UserError, match=r"writes message 2 .*a row of its own"):
        learned_turns(c, TALK)
    assert verdict(c).differs == verdict(c).refused != ""
    assert verdict(c).ends == (c.end_of_turn,)


def test_verdicts():
    for name in ("chatml", "llama3", "gemma", "mistral", "sentencepiece"):
        c = codec(*FORMS[name][:2])
        found = verdict(c)
        assert (found.is_marked, found.differs, found.refused) == (False, "", "")
        assert found.ends == (c.end_of_turn,) * 2
    # Where the template writes no end, the last turn alone can teach it.
    c = codec("no_template", UNENDED)
    assert runs(c, learned_turns(c, TALK[:4])[1])[0].strip() == TALK[1]["content"]
    ends = verdict(c).ends
    assert (ends[0] in c.stop_ids, ends[1] in c.stop_ids) == (False, True)


def test_a_template_that_opens_a_thought():
    """As DeepSeek's: the generation prompt opens <think>, and what is kept of a turn is its answer."""
    opening = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
    c = codec("chatml", opening)
    found = verdict(c)
    assert found.refused
    assert found.ends == (c.end_of_turn,)
    with pytest.raises(UserError, match="writes message 2"):
        learned_turns(c, TALK)


def test_a_word_across_the_seam_is_learned_from_the_ids_that_a_sampler_meets():
    """The opening ends inside a word, which the whole rendering would merge into one token."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + (' capi' if m.role == 'assistant' else '') + "
        "m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|> capi' }}{% endif %}"
    )
    c = codec("chatml", template)
    words = functools.partial(c.tokenizer.encode, add_special_tokens=False)
    assert words(" capital")[: len(words(" capi"))] != words(" capi")
    turns = [user("Hi"), assistant("tal"), user("Hi"), assistant("tal of")]
    prompt, learned = learned_turns(c, turns)
    assert prompt == c.prompt("Hi")
    assert runs(c, learned) == ["tal<|im_end|>", "tal of<|im_end|>"]
    first = c.completion_ids("Hi", "tal")
    assert learned.ids[: len(first)] == first
    whole = c.tokenizer.apply_chat_template(turns, tokenize=False)
    assert c.tokenizer.decode([*prompt.ids, *learned.ids]) == whole


def test_turns_of_weight_0_are_read_and_not_learned():
    c = codec("chatml")
    _, learned = learned_turns(c, [*TALK[:3], assistant("no", weight=0), *TALK[4:]])
    assert runs(c, learned) == [f"{TALK[i]['content']}<|im_end|>" for i in (1, 5)]
    # Before the first that is learned all is prompt; behind the last nothing is kept.
    first = [user("Hi"), assistant("x", weight=0), user("Ho"), assistant("y", weight=1)]
    prompt, learned = learned_turns(c, [*first, user("z"), assistant("z", weight=0)])
    assert prompt.ids == c.prompt(first[:3]).ids
    assert runs(c, learned) == ["y<|im_end|>"]
    marks = codec("chatml", marked("message['content'] + '<|im_end|>'", "'\\n'"))
    turns = [*TALK[:3], assistant("no", weight=0), *TALK[4:]]
    assert learned_turns(marks, turns) == learned_turns(c, turns)
    with pytest.raises(UserError, match="message 2: 'weight' is 2, expected 0 or 1"):
        learned_turns(c, [user("Hi"), assistant("x", weight=2)])


def test_a_tools_turn_is_read_and_not_learned():
    c = codec("chatml")
    turns = [user("Hi"), assistant("look"), {"role": "tool", "content": "7"}, assistant("seven")]
    _, learned = learned_turns(c, turns)
    assert runs(c, learned) == ["look<|im_end|>", "seven<|im_end|>"]


@pytest.mark.parametrize(
    ("family", "template", "turns", "sentence"),
    [
        ("chatml", None, [user("Hi")], "no turn is the assistant's to learn"),
        ("chatml", None, [assistant("Hi"), *TALK], "the first turn is the assistant's"),
        ("chatml", "none", TALK, "needs a chat template, but template='none'"),
        ("chatml", None, [*TALK[:3], assistant("a<|im_end|>b")], "holds <|im_end|>, which would"),
        (
            "chatml",
            None,
            [user("Hi"), assistant("a<|im_end|>b"), *TALK],
            "message 2 (the assistant's) holds <|im_end|>, which would end it early",
        ),
        (
            "chatml",
            marked("message['content'] + '<|im_end|>'", "'\\n'"),
            [user("Hi"), assistant("a<|im_end|>b"), *TALK],
            "message 2 (the assistant's) holds <|im_end|>",
        ),
        (
            "bos",
            GEMMA,
            [system("S"), *TALK],
            "refuses the messages (system, user): no system turns",
        ),
        ("bos", GEMMA, [*TALK, *TALK[1:]], "turns must alternate"),
    ],
)
def test_what_is_refused(family, template, turns, sentence):
    with pytest.raises(UserError) as refused:
        learned_turns(codec(family, template), turns)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("family", ["chatml", "qwen", "bos", "sentencepiece", "no_template"])
def test_plain_text_is_learned_from_its_second_token_on_and_ends(family):
    c = codec(family, "none")
    text = "The capital of France"
    prompt, learned = plain_text(c, text)
    own = c.tokenizer(text)["input_ids"]  # BOS included where the tokenizer adds one
    assert [*prompt.ids, *learned.ids] == [*own, c.tokenizer.eos_token_id]
    assert (len(prompt.ids), learned.chosen) == (1, None)
    # An end that is there already is not doubled; one token alone teaches to end.
    assert plain_text(c, text + c.tokenizer.eos_token) == (prompt, learned)
    if family == "chatml":
        dot = c.tokenizer.encode(".")
        assert plain_text(c, ".") == (Prompt(".", tuple(dot)), Given((c.tokenizer.eos_token_id,)))


def test_a_text_ends_with_the_tokenizers_eos_also_where_turns_end_otherwise():
    c = codec("bos", LLAMA3)
    assert c.end_of_turn != c.tokenizer.eos_token_id
    assert plain_text(c, "good")[1].ids[-1] == c.tokenizer.eos_token_id
