"""`plaudit data check` as a user meets it: what a file holds, how a model reads it, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.cli.data import marked
from plaudit.pipelines.lm.data_check import Excerpt, _lengths
from tiny_models import tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def check(plaudit, tmp_path, monkeypatch):
    """Writes rows to a file and looks at it: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(rows, *words, name="d.jsonl"):
        text = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
        (tmp_path / name).write_text(text)
        return plaudit("data", "check", name, *words)

    return call


def pair(prompt, chosen, rejected, **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


PAIRS = [
    pair("Hi", "Hello!", "No.", margin=1),
    pair("Hi", "No.", "Hello!", margin=2),
    pair("Hi", "Hello!", "No.", margin=1),
    pair("A river?", "Weser", "Weser", margin=0.5),
]


def test_comparisons_are_counted(check):
    code, out, err = check(PAIRS)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "d.jsonl: 4 rows of comparisons (prompt, chosen, rejected)",
        "Learned by: dpo, simpo, orpo, reward",
        "Prompts: 2 different, at most 3 rows each",
        "The chosen answer is the longer one: 2 of 3 (67%) (in characters)",
        "Pairs that are decided both ways: 1",
        "Pairs of equal answers, which teach nothing: 1",
        "Margins: 0.5 to 2",
        "Repeated rows: 1",
    ]


def test_the_format_is_named_and_its_notes_are_said(check):
    talk = "\n\nHuman: Hi\n\nAssistant: "
    code, out, _ = check([{"chosen": talk + "Hello!", "rejected": talk + "No."}] * 2)
    assert code == 0
    assert "d.jsonl is read as HH-RLHF transcripts" in out
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    code, out, _ = check([{"conversations": turns * 2}])
    assert (code, out.splitlines()) == (
        0,
        [
            "d.jsonl: 1 row of conversations (messages)",
            "d.jsonl is read as ShareGPT conversations",
            "Learned by: sft",
            "Turns of the assistant: 2, 2 to 2 in each row",
        ],
    )


def test_nine_tenths_are_at_most_what_is_said():
    """Of 1 to 10 nine are at most 9; of two numbers, nine tenths are both."""
    assert _lengths("Rows", range(10, 0, -1)).endswith("median 5, nine tenths at most 9")
    assert _lengths("Rows", [7, 3]) == "Rows: 3 to 7 tokens, median 3, nine tenths at most 7"


def test_labels_ties_and_empty_answers_are_shares(check):
    rows = [{"prompt": "Hi", "completion": x, "label": x != ""} for x in ("a", "b", "", "")]
    _, out, _ = check(rows)
    assert "Called good: 2 of 4 (50%)" in out
    assert "Empty answers: 2 of 4 (50%)" in out
    assert "Repeated rows: 1" in out
    _, out, _ = check([pair("Hi", "a", "b", share=0.5), pair("Ho", "a", "b", share=1)])
    assert "Ties (share 0.5): 1 of 2 (50%)" in out


def test_csv_scores_prompts_and_kinds_by_name(check):
    _, out, _ = check("question,good,bad\nHi,a,b\n", "--columns", "prompt=question", "chosen=good",
                      "rejected=bad", name="d.csv")  # fmt: skip
    assert out.startswith("d.csv: 1 row of comparisons")
    _, out, _ = check([{"prompt": "p", "completions": ["a", "b"], "scores": [1, 2]}])
    assert "Learned by: no job directly; plaudit feedback import takes them" in out
    _, out, _ = check(PAIRS, "--kind", "prompt")
    assert out.splitlines()[:2] == [
        "d.jsonl: 4 rows of prompts (prompt)",
        "Learned by: grpo, rloo, reinforce_pp, ppo, online_dpo, best_of_n",
    ]


CHATS = [
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "good"},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "good " * 30},
        ]
    },
]


def test_a_model_reads_conversations(check, model):
    code, out, err = check(CHATS, "--model", model, "--max-length", "60")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"Model: {model}, context 256 tokens" in lines
    assert "Template: prefix-preserving: yes" in lines
    assert "Template: the token that ends a turn is learned: yes, <|im_end|>" in lines
    assert "Template: the assistant's turns are told by: prefix differences" in lines
    told = re.search(r"^1 of 2 rows is longer than max_length, 60 tokens, .*line 2: (\d+) tok", out, re.M)  # fmt: skip
    assert told is not None
    assert re.search(rf"^Rows: \d+ to {told[1]} tokens", out, re.M)  # lengths are of all rows
    assert out.endswith(
        "The first row, as the model reads it:\n"
        "  <|im_start|>user\n  Hi<|im_end|>\n  <|im_start|>assistant\n  «Ho<|im_end|>»\n"
        "  <|im_start|>user\n  Well?<|im_end|>\n  <|im_start|>assistant\n  «good<|im_end|>»\n"
    )
    _, out, _ = check(CHATS, "--model", model)
    assert "Every row fits the model's context, 256 tokens" in out


def test_lengths_are_those_of_the_tokenizer(check, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = ["Hi", "What is the capital of France?", "A river?"]
    code, out, _ = check([{"prompt": p, "completion": "good"} for p in asked], "--model", model)
    lengths = sorted(
        len(tokenizer.apply_chat_template([{"role": "user", "content": p}],
                                          add_generation_prompt=True)["input_ids"]) for p in asked
    )  # fmt: skip
    low, middle, high = lengths
    num = len(tokenizer.encode("good")) + 1
    assert code == 0
    assert f"Prompts: {low} to {high} tokens, median {middle}, nine tenths at most {high}" in out
    assert f"Answers: {num} to {num} tokens, median {num}, nine tenths at most {num}" in out
    assert f"Rows: {low + num} to {high + num} tokens, median {middle + num}" in out


def test_a_model_reads_every_other_kind(check, model):
    _, out, _ = check(PAIRS, "--model", model)
    assert re.search(r"^Chosen answers: \d.*\nRejected answers: \d.*\nRows: \d", out, re.M)
    assert "  «Hello!<|im_end|>»\nThe rejected answer to it, as the model reads it:" in out
    assert out.endswith("  «No.<|im_end|>»\n")
    _, out, _ = check([{"text": "good river"}], "--model", model)
    assert "Template: not used for plain texts" in out
    assert re.search(r"\n  g\w*«.*river<\|im_end\|>»\n$", out)
    _, out, _ = check([{"prompt": "Hi", "completion": "a", "label": 1}], "--model", model)
    assert out.endswith("«a<|im_end|>»\n")
    _, out, _ = check([{"prompt": "Hi"}], "--model", model)
    assert out.endswith("  <|im_start|>assistant\n  \n")
    _, out, _ = check([{"prompt": "p", "completions": ["a"], "scores": [1]}], "--model", model)
    assert "Model" not in out
    _, out, _ = check(PAIRS, "--model", model, "--template", "none")
    assert "Template: none, plain text; learned last is <|im_end|>" in out


def test_a_template_that_forgets_is_told_and_refused_with_the_line(check, model, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    code, out, err = check(CHATS, "--model", model, "--template", "t.jinja")
    assert code == 2
    assert "Template: prefix-preserving: no: the chat template writes message 2" in out
    assert "told by: no: one turn of the assistant a row can be learned" in out
    assert err.startswith("plaudit: d.jsonl, line 1: the chat template writes message 2")
    assert check(CHATS[1:], "--model", model, "--template", "t.jinja")[0] == 0


@pytest.mark.parametrize(
    ("rows", "words", "sentence"),
    [
        ([{"prompt": ""}], [], "d.jsonl, line 1: 'prompt' is empty"),
        ([{"a": 1}], [], "columns a are no kind of data"),
        (PAIRS, ["--kind", "preferences"], "no kind of data 'preferences' (did you mean"),
        (PAIRS, ["--kind", "unpaired"], "no column 'completion'"),
        (
            PAIRS,
            ["--template", "none"],
            "--template is about a model's tokens: name one by --model",
        ),
        (PAIRS, ["--max-length", "9"], "--max-length is about a model's tokens"),
        (PAIRS, ["--max-length", "few"], "--max-length few: expected a whole number"),
        (PAIRS, ["--columns", "x"], "expected NEW=OLD"),
        (PAIRS, ["--modle", "x"], "did you mean '--model'"),
        (PAIRS, ["--model", "MODEL", "--max-length", "1"], "expected at least 2 tokens"),
        (PAIRS, ["--model", "MODEL", "--max-length", "9999"], "the model's context is 256"),
        (PAIRS, ["--model", "MODEL", "--max-length", "5"], "all 4 rows are longer than 5 tokens"),
        ([pair("Hi", "a", "b", share=2)], ["--model", "MODEL"], "line 1: 'share' is 2"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(check, model, rows, words, sentence):
    code, _, err = check(rows, *(str(model) if word == "MODEL" else word for word in words))
    assert code == 2
    assert err.startswith("plaudit: ")
    assert sentence in err
    assert err.count("\n") == 1


PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.mark.weights
def test_the_pages_output_is_what_is_said(check):
    rows = PAGE.partition("```jsonl\n")[2].partition("```")[0]
    said = PAGE.partition("--max-length 50` says:\n\n```text\n")[2].partition("```")[0]
    code, out, _ = check(rows, "--model", "smollm2", "--max-length", "50", name="chats.jsonl")
    assert (code, out) == (0, said)


def test_help_and_missing_words(plaudit):
    assert "data" in plaudit("--help")[1]
    assert "check" in plaudit("data", "--help")[1]
    code, out, _ = plaudit("data", "check", "--help")
    assert code == 0
    assert "--max-length" in out
    for words in (["data"], ["data", "chek"], ["data", "check"]):
        code, out, err = plaudit(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_no_torch_without_a_model(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    script = (
        "import sys; from plaudit.cli.main import main; "
        f"code = main(['data', 'check', {str(tmp_path / 'd.jsonl')!r}]); "
        "sys.exit(code or 3 * bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_marks_are_told_from_the_texts_own_and_colour_is_extra():
    said = Excerpt((("Il dit «oui»", False), ("so\nbe \x1b[2J it", True), (" .", False)))
    plain = marked(said, colour=False)
    assert plain == "(learned is what stands in ⟦⟧)\n  Il dit «oui»⟦so\n  be \\x1b[2J it⟧ ."
    assert marked(said, colour=True) == plain.replace("⟦", "\x1b[32m⟦").replace(
        "⟧ ", "⟧\x1b[0m "
    ).replace("\x1b[32m⟦⟧)", "⟦⟧)")


def test_long_pieces_are_shortened_in_the_middle_and_say_so(check, tmp_path):
    long = tiny_llama(tmp_path / "long", context=4096)
    text = "x" * 700 + "good" * 300 + "y" * 800
    _, out, _ = check([{"prompt": "Hi", "completion": text}], "--model", long)
    said = out.partition("«")[2].rpartition("»")[0]
    cut = len(text) + len("<|im_end|>") - 1600
    assert said == f"{text[:800]} [… {cut:,} characters …] {text[-790:]}<|im_end|>"
