"""Templates, BOS, stop tokens, padding: on every tokenizer family that can be made offline."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.models.text import TextCodec, pad_left, pad_right
from plaudit.records.errors import UserError
from plaudit.records.types import Prompt
from tiny_models import CHATML, FAMILIES, tiny_tokenizer

CHAT = tuple(family for family in FAMILIES if family != "no_template")
QUESTION = "What is the capital of France?"


@functools.cache
def codec(family: str, template: str | None = None) -> TextCodec:
    return TextCodec.build(tiny_tokenizer(family), context=256, template=template)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", CHAT)
def test_prompt_ids_are_those_of_transformers(family):
    made = codec(family).prompt(QUESTION, {"answer": "Paris"})
    expected = codec(family).tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
    )
    assert list(made.ids) == expected
    assert made.text == QUESTION
    assert made.columns == {"answer": "Paris"}


@pytest.mark.parametrize("family", ["bos", "sentencepiece"])
@pytest.mark.parametrize("template", [None, "none"])
def test_bos_comes_once(family, template):
    c = codec(family, template)
    bos = c.tokenizer.bos_token_id
    ids = c.prompt(QUESTION).ids
    assert ids[0] == bos
    assert ids.count(bos) == 1
    # Text that already begins with BOS, as written by an earlier rendering, gets no second one.
    if template == "none":
        again = c.prompt(c.tokenizer.bos_token + QUESTION).ids
        assert again[0] == bos
        assert again.count(bos) == 1


@pytest.mark.parametrize("family", ["chatml", "qwen", "no_template"])
def test_plain_text_has_no_bos_where_the_tokenizer_adds_none(family):
    c = codec(family, "none")
    assert list(c.prompt("good river").ids) == ids_of(c.tokenizer, "good river")


@pytest.mark.parametrize("family", CHAT)
@pytest.mark.parametrize(
    "answer", ["Paris.", "The river é 🙂\n\nis   wide", " leading", "1 2 3", ""]
)
def test_completion_continues_the_prompt_as_the_template_renders_it(family, answer):
    c = codec(family)
    turns = [{"role": "user", "content": QUESTION}]
    prompt = c.prompt(QUESTION).ids
    whole = c.tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": answer}], return_dict=False
    )
    ids = c.completion_ids(QUESTION, answer)
    assert list(prompt + ids) == whole[: len(prompt) + len(ids)]
    # What is left out is only what the template writes after the stop token: a newline or nothing.
    assert c.tokenizer.decode(whole[len(prompt) + len(ids) :]).strip() == ""
    assert ids[-1] == c.tokenizer.eos_token_id
    assert not c.stop_ids & set(ids[:-1])


@pytest.mark.parametrize("family", CHAT)
@pytest.mark.parametrize("answer", ["Paris.", "The river é 🙂\n\nis   wide", "1 2 3", ""])
def test_decoding_gives_the_answer_back(family, answer):
    assert codec(family).decode(codec(family).completion_ids(QUESTION, answer)) == answer


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_any_text_survives_the_byte_level_families(text):
    c = codec("chatml")
    if not text.strip():
        return
    assert c.decode(c.completion_ids(text, text)) == text
    assert c.prompt(text).text == text


def test_several_turns_and_a_system_message_are_rendered_and_readable():
    c = codec("chatml")
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    made = c.prompt(turns)
    rendered = (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert list(made.ids) == ids_of(c.tokenizer, rendered)
    assert made.text == "system: Be short.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Bye"
    ids = c.completion_ids(turns, "See you")
    assert list(ids) == [*ids_of(c.tokenizer, "See you"), c.end_of_turn]


def test_fields_of_a_message_that_are_null_count_as_absent():
    """A template that joins `message.name` must not meet a null that Parquet filled in."""
    named = CHATML.replace("message['role']", "message.get('name', message['role'])")
    made = codec("chatml", named).prompt([{"role": "user", "content": "Hi", "name": None}])
    assert made.ids == codec("chatml", named).prompt("Hi").ids
    assert made.messages == ({"role": "user", "content": "Hi"},)


def test_a_prompt_can_be_completed_in_place_of_its_messages():
    c = codec("chatml")
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    for text in ("Hi", turns):
        assert c.completion_ids(c.prompt(text), "Hello") == c.completion_ids(text, "Hello")
    # A bare record has lost its messages: fine while its ids are those of its text.
    for text in ("Hi", turns):
        bare = Prompt(c.prompt(text).text, c.prompt(text).ids)
        if text == "Hi":
            assert c.completion_ids(bare, "Hello") == c.completion_ids("Hi", "Hello")
        else:
            with pytest.raises(UserError, match="are not those of its text"):
                c.completion_ids(bare, "Hello")


def test_stop_tokens_come_from_model_tokenizer_and_template():
    tokenizer = tiny_tokenizer("no_template")  # eos is <|endoftext|>, id 0
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    c = TextCodec.build(tokenizer, eos_ids=[7], context=256, template="chatml")
    assert c.stop_ids == {0, 7, im_end}
    assert c.end_of_turn == im_end
    assert c.completion_ids("Hi", "Ho")[-1] == im_end
    plain = TextCodec.build(tiny_tokenizer("no_template"), context=256, template="none")
    assert plain.stop_ids == {0}
    assert plain.completion_ids("Hi", "Ho")[-1] == 0


def test_pad_id_falls_back_to_the_stop_token():
    assert codec("pad").pad_id == codec("pad").tokenizer.convert_tokens_to_ids("<|pad|>")
    assert codec("chatml").pad_id == codec("chatml").tokenizer.eos_token_id
    assert codec("sentencepiece").pad_id == codec("sentencepiece").tokenizer.eos_token_id


def test_decode_drops_special_tokens_and_one_stop_token():
    c = codec("chatml")
    words = ids_of(c.tokenizer, "good river")
    start = c.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert c.decode([*words, c.end_of_turn]) == "good river"
    assert c.decode([start, *words]) == "good river"
    assert c.decode([]) == ""
    # A stop token that is an ordinary token still closes the answer, and only at its end.
    dot = ids_of(c.tokenizer, ".")[0]
    stopping = TextCodec.build(tiny_tokenizer("chatml"), eos_ids=[dot], context=9)
    assert stopping.decode([*words, dot]) == "good river"
    assert stopping.decode([dot, *words]) == ".good river"


def test_a_word_cut_by_the_seam_is_completed_from_the_ids_that_a_sampler_meets():
    c = codec("no_template", "none")
    whole, start = ids_of(c.tokenizer, "capital"), ids_of(c.tokenizer, "capi")
    assert whole[: len(start)] != start  # the tokenizer would merge across the seam
    prompt, ids = c.prompt("capi").ids, c.completion_ids("capi", "tal")
    assert list(prompt) == start
    assert c.tokenizer.decode([*prompt, *ids[:-1]]) == "capital"


def test_a_template_without_special_tokens_ends_with_eos():
    template = (
        "{% for m in messages %}{{ '## ' + m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '## assistant:' }}{% endif %}"
    )
    c = TextCodec.build(tiny_tokenizer("no_template"), context=256, template=template)
    expected = [*ids_of(c.tokenizer, " Fine"), 0]
    assert list(c.completion_ids("Well?", "Fine")) == expected


def test_a_template_that_rewrites_the_prompt_is_refused():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>think' }}{% endif %}"
    )
    c = TextCodec.build(tiny_tokenizer("chatml"), context=256, template=template)
    with pytest.raises(UserError, match="writes an answered prompt differently"):
        c.completion_ids("Hi", "Ho")


def test_a_template_that_refuses_its_turns_says_so():
    template = (
        "{% if messages|length > 2 %}{{ raise_exception('only one turn') }}{% endif %}" + CHATML
    )
    c = TextCodec.build(tiny_tokenizer("chatml"), context=256, template=template)
    turns = [{"role": "user", "content": "a"}] * 3
    with pytest.raises(
        UserError, match=r"refuses the messages \(user, user, user\): only one turn"
    ):
        c.prompt(turns)


def test_template_may_be_a_file_and_travels_with_the_tokenizer(tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    c = TextCodec.build(tiny_tokenizer("no_template"), context=256, template=str(file))
    assert c.template == CHATML
    assert c.tokenizer.chat_template == CHATML
    assert c.completion_ids("Hi", "Ho")[-1] == c.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_missing_template_says_how_to_give_one():
    with pytest.raises(UserError, match="has no chat template: give template='none'"):
        TextCodec.build(tiny_tokenizer("no_template"), context=256)
    with pytest.raises(UserError, match=r"no template file 'chatlm'.*did you mean 'chatml'"):
        TextCodec.build(tiny_tokenizer("no_template"), context=256, template="chatlm")


@pytest.mark.parametrize("empty", ["", "  \n", [], [{"role": "user", "content": " "}]])
def test_empty_prompt_is_an_error(empty):
    with pytest.raises(UserError, match="the prompt is empty"):
        codec("chatml").prompt(empty)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (["hello"], "message 1 of a prompt must be"),
        ([{"role": "user"}], "message 1 of a prompt must be"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": 3}], "message 2"),
        ([{"role": "assistant", "content": "x"}], "ends with a turn of the assistant"),
    ],
)
def test_messages_of_the_wrong_form_are_named(turns, message):
    with pytest.raises(UserError, match=message):
        codec("chatml").prompt(turns)


def test_a_conversation_needs_a_template():
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(UserError, match="needs a chat template"):
        codec("no_template", "none").prompt(turns)


def test_a_completion_that_holds_a_stop_token_is_refused():
    with pytest.raises(UserError, match=r"holds <\|im_end\|>, which would end it early"):
        codec("chatml").completion_ids("Hi", "one<|im_end|>two")


def test_a_prompt_too_long_is_named_with_its_figures():
    c = codec("chatml")
    prompt = Prompt("", tuple(range(200)))
    c.fits(prompt, 56)
    with pytest.raises(UserError) as error:
        c.fits(Prompt("", (1,) * 2190), 64, row=17)
    assert str(error.value) == (
        "prompt 17 has 2,190 tokens, which with 64 new ones exceeds the model's context of 256"
    )
    with pytest.raises(UserError, match="the prompt has 200 tokens"):
        c.fits(prompt, 57)


def test_no_stop_token_at_all_is_an_error():
    tokenizer = tiny_tokenizer("no_template")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no token that ends an answer"):
        TextCodec.build(tokenizer, context=256, template="none")


def test_a_truncating_tokenizer_truncates_nothing_here():
    tokenizer = tiny_tokenizer("left")
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.model_max_length = 4
    made = TextCodec.build(tokenizer, context=256).prompt(QUESTION)
    assert made.ids == codec("chatml").prompt(QUESTION).ids


def test_padding_by_hand():
    ids, mask = pad_left([[5, 6], [7]], 9)
    assert ids.tolist() == [[5, 6], [9, 7]]
    assert mask.tolist() == [[True, True], [False, True]]
    ids, mask = pad_right([[5, 6], [7]], 9)
    assert ids.tolist() == [[5, 6], [7, 9]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert pad_right([], 9)[0].shape == (0, 0)
    assert ids.dtype == torch.int64


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=5), st.integers(0, 5))
def test_masked_tokens_are_the_rows_whatever_the_pad_id(rows, pad_id):
    for pad in (pad_left, pad_right):
        ids, mask = pad(rows, pad_id)
        assert [ids[i][mask[i]].tolist() for i in range(len(rows))] == rows
