"""What the job refuses before anything is drawn, and what --check says of what it would do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.models.formats.load import load_language_model
from plaudit.models.text import TextCodec
from plaudit.pipelines.pages.report_contents import notices
from plaudit.pipelines.rlhf.check import said as said_time
from plaudit.records.errors import UserError
from plaudit.records.files import read_json
from tiny_job import FLAGS, REWARD, run_command, tiny_job, write_rows
from tiny_models import CHATML, tiny_tokenizer

RUN = ("run", "rlhf", *FLAGS)
FILE = ("--feedback.source", "file", "--feedback.file")
THINKING = CHATML.replace("<|im_start|>assistant\\n", "<|im_start|>assistant\\n<think>\\n")
PAIRS = [
    {"prompt": f"Write about cart number {i % 12}.", "chosen": f"good {i}", "rejected": "bad"}
    for i in range(36)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_job(tmp_path_factory.mktemp("check"))


@pytest.fixture
def folder(made, monkeypatch):
    """The job's files as the working folder, without runs."""
    monkeypatch.chdir(made)
    shutil.rmtree("runs", ignore_errors=True)
    return made


def refused(*words, check=False):
    """The one sentence of a refusal before anything was drawn; nothing of a run is left."""
    said = run_command(*RUN, *words, *(["--check"] if check else ["--name", "wrong"]))
    assert said.code == 2, said.err
    assert said.err.count("\n") == 1, said.err
    assert "begins" not in said.out
    assert not Path("runs", "wrong").exists()
    return said.err.removeprefix("plaudit: ").rstrip("\n")


def pairs(*changed):
    """A file of comparisons in which some rows, by their line, are others."""
    rows = list(PAIRS)
    for line, row in changed:
        rows[line - 1] = PAIRS[line - 1] | row
    write_rows(Path("said.jsonl"), rows)
    return (*FILE, "said.jsonl")


# --- comparisons of a file


@pytest.mark.parametrize("check", [False, True])
def test_two_equal_texts_are_refused_with_their_lines(folder, check):
    said = refused(*pairs((7, {"rejected": "good 6"})), check=check)
    assert said == (
        "said.jsonl, line 7: chosen and rejected are the same text, which teaches nothing: leave "
        "such rows out"
    )
    all_of_them = pairs(*((n, {"chosen": "same", "rejected": "same"}) for n in range(1, 37)))
    assert "teaches nothing (also line 2, 3, 4, 5, 6 and 30 more)" in refused(
        *all_of_them, check=check
    )


def test_comparisons_of_one_prompt_are_refused(folder):
    said = refused(*pairs(*((n, {"prompt": "Same?"}) for n in range(1, 37))))
    assert said.startswith("said.jsonl: all comparisons are on one prompt")


def test_too_few_comparisons_are_refused_in_words_that_fit_a_file(folder):
    write_rows(Path("few.jsonl"), PAIRS[:10])
    said = refused(*FILE, "few.jsonl")
    assert said.startswith("few.jsonl has 10 comparisons, of which 8 would teach")
    assert said.endswith("at least 20 are needed to teach: give more comparisons")
    assert "pairs_per_prompt" not in said


@pytest.mark.parametrize("name", ["chosen", "rejected"])
def test_an_answer_longer_than_the_context_is_named_by_its_line(folder, name):
    said = refused(*pairs((9, {name: "river " * 200})))
    assert re.fullmatch(
        rf"said.jsonl, line 9: the prompt has \d+ tokens, which with the [\d,]+ of the {name} "
        "answer exceeds the model's context of 256",
        said,
    )


def test_an_answer_that_just_fits_is_taken(folder):
    codec = load_language_model("model").codec
    prompt, dots = codec.prompt(PAIRS[0]["prompt"]), "."
    while len(prompt.ids) + len(codec.completion_ids(prompt, dots)) < 256:
        dots += " ."
    assert run_command(*RUN, *pairs((1, {"chosen": dots})), "--check").code == 0
    assert "context of 256" in refused(*pairs((1, {"chosen": f"{dots} ."})))


def test_a_stop_token_in_a_compared_answer_is_named_by_its_line(folder):
    said = refused(*pairs((3, {"chosen": "Stop.<|im_end|>"})))
    assert said.startswith("said.jsonl, line 3: the completion 'Stop.<|im_end|>' holds <|im_end|>")


# --- templates


def test_a_generation_prompt_that_opens_a_tag_is_answered_right_after_it():
    codec = TextCodec.build(tiny_tokenizer("chatml"), context=256, template=THINKING)
    prompt = codec.prompt("Hi")
    ids = codec.completion_ids(prompt, "So.</think>Ho")
    assert codec.tokenizer.decode([*prompt.ids, *ids]) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\nSo.</think>Ho<|im_end|>"
    )
    codec.require_closed(prompt, "So.</think>Ho")
    with pytest.raises(UserError, match="opens <think>, which the answer 'Ho' does not close"):
        codec.require_closed(prompt, "Ho")


def test_a_template_that_closes_the_tag_itself_needs_no_closing():
    answered = CHATML.replace(
        "message['content'] + '<|im_end|>'",
        "('<think>\\n\\n</think>\\n' if message['role'] == 'assistant' else '')"
        " + message['content'] + '<|im_end|>'",
    )
    template = answered.replace("<|im_start|>assistant\\n", "<|im_start|>assistant\\n<think>\\n")
    codec = TextCodec.build(tiny_tokenizer("chatml"), context=256, template=template)
    codec.require_closed("Hi", "Ho")
    ids = codec.completion_ids("Hi", "Ho")
    assert codec.tokenizer.decode(ids) == "\n</think>\nHo<|im_end|>"


def test_a_model_that_thinks_goes_through_the_whole_job(folder):
    Path("thinks.jinja").write_text(THINKING)
    done = run_command(*RUN, *REWARD, "--template", "thinks.jinja", "--name", "thinks")
    assert (done.code, done.err) == (0, "")
    assert Path("runs/thinks/reward_model/model.safetensors").is_file()


@pytest.mark.parametrize("check", [False, True])
def test_answers_that_do_not_close_what_the_template_opens_are_named(folder, check):
    Path("thinks.jinja").write_text(THINKING)
    said = refused(*pairs(), "--template", "thinks.jinja", check=check)
    assert said.startswith(
        "said.jsonl, line 1: the chat template's generation prompt opens <think>, which the answer "
        "'good 0' does not close"
    )
    words = ("--template", "thinks.jinja", "--demonstrations", "wanted.jsonl")
    assert refused(*REWARD, *words, check=check).startswith("wanted.jsonl, line 1: the chat templ")


def test_a_template_that_cannot_render_an_answer_is_refused_at_once(folder):
    Path("odd.jinja").write_text(CHATML.replace("<|im_start|>assistant\\n", "<|im_start|>think "))
    assert "writes an answered prompt differently" in refused(*REWARD, "--template", "odd.jinja")


# --- keys and columns


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--feedback.num-annotators", "1"], "feedback.votes_per_pair is 2, but there are only 1"),
        (
            [*REWARD, "--ppo.num-minibatches", "5"],
            "ppo.num_minibatches is 5, but a step has only 4",
        ),
        (
            [*REWARD, "--feedback.pairs-per-prompt", "2"],
            "8 training prompts give at most 16 comparisons, but at least 20",
        ),
        (
            [*REWARD, "--feedback.answers-per-prompt", "2"],
            "8 training prompts give at most 8 comparisons, but at least 20",
        ),
        (
            [*REWARD, "--sampler-precision", "int8"],
            "with sampler_precision=int8 answers are drawn from a rounded policy, for which PPO",
        ),
        ([*REWARD, "--num-top-layers", "9"], "num_top_layers is 9, but this model has 4 layers"),
        ([*REWARD, "--lora-rank", "999"], "lora_rank is 999, but the model's maps allow ranks"),
        (
            ["--feedback.source", "people", "--feedback.store", "no/store.sqlite"],
            "no/store.sqlite: the folder no does not exist; make it first",
        ),
        (
            ["--feedback.source", "people", "--feedback.store", "reward.py"],
            "reward.py: this file is not an SQLite database",
        ),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_keys_that_cannot_be_are_refused(folder, words, problem, check):
    assert refused(*words, check=check).startswith(problem)


@pytest.mark.parametrize("name", ["completions", "prompts"])
def test_a_column_with_the_name_of_an_argument_of_every_reward_is_refused(folder, name):
    rows = [{"prompt": f"Cart {i}?", name: ["a"]} for i in range(12)]
    write_rows(Path("columns.jsonl"), rows)
    said = refused(*REWARD, "--prompts", "columns.jsonl")
    assert said.startswith(f"columns.jsonl has a column '{name}', and ")
    words = ("--prompts", "columns.jsonl", "--columns", f"other={name}", "--check")
    assert run_command(*RUN, *REWARD, *words).code == 0


def test_a_constant_reward_is_told_so_and_no_resume_is_offered(folder):
    Path("flat.py").write_text("def flat(prompts, completions):\n    return [1] * len(prompts)\n")
    said = run_command(*RUN, "--reward", "flat.py:flat", "--name", "wrong")
    assert said.code == 2
    assert "the reward gives most answers the same score" in said.err
    assert "--resume" not in said.err
    assert "pairs_per_prompt" not in said.err
    assert said.err.endswith("plaudit: what was done is in runs/wrong\n")


# --- what refuses before the model is read


@pytest.fixture
def torn(folder):
    """A model of which all can be read but the weights, whose file was cut short."""
    shutil.rmtree("torn", ignore_errors=True)
    weights = Path(shutil.copytree("model", "torn"), "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    return Path("torn")


def long_answers():
    write_rows(Path("long.jsonl"), [{"prompt": "Hi", "completion": "river " * 400}])
    return (*REWARD, "--demonstrations", "long.jsonl")


def odd_template():
    Path("odd.jinja").write_text(CHATML.replace("<|im_start|>assistant\\n", "<|im_start|>think "))
    return (*REWARD, "--template", "odd.jinja")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (lambda: (*REWARD, "--num-top-layers", "9"), "num_top_layers is 9, but this model has 4"),
        (long_answers, "long.jsonl, line 1: the prompt has "),
        (lambda: pairs((9, {"chosen": "river " * 200})), "said.jsonl, line 9: the prompt has "),
        (odd_template, "the chat template writes an answered prompt differently"),
    ],
    ids=["layers", "demonstration", "comparison", "template"],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_needs_no_weights_is_refused_before_they_are_read(torn, words, problem, check):
    assert refused(*words(), "--model", "torn", check=check).startswith(problem)
    assert "model.safetensors is damaged or cut short" in refused(*REWARD, "--model", "torn")


def test_check_refuses_layers_of_a_model_without_weights(torn):
    Path("torn", "model.safetensors").unlink()
    words = (*REWARD, "--model", "torn", "--num-top-layers", "9")
    assert refused(*words, check=True).startswith("num_top_layers is 9, but this model has 4 lay")


def test_a_kind_that_no_reward_model_has_is_refused_before_its_weights_are_read(torn):
    from transformers import TrOCRConfig

    vocab = len(tiny_tokenizer("chatml"))
    config = TrOCRConfig(vocab_size=vocab, architectures=["TrOCRForCausalLM"])
    config.save_pretrained(torn)
    assert refused(*REWARD, "--model", "torn", check=True) == (
        "a reward model of TrOCRForCausalLM cannot be saved, as transformers has neither a "
        "sequence classifier nor a bare decoder of its kind: use another model"
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (lambda: pairs((7, {"rejected": "good 6"})), "said.jsonl, line 7: chosen and rejected"),
        (lambda: pairs(*((n, {"prompt": "Same?"}) for n in range(1, 37))), "said.jsonl: all comp"),
        (lambda: (*REWARD, "--num-top-layers", "9", "--check"), "num_top_layers is 9, but"),
        (lambda: ("--reward", "no.py:f"), "reward file no.py does not exist"),
    ],
    ids=["equal texts", "one prompt", "layers", "reward"],
)
def test_what_needs_no_texts_as_tokens_is_refused_without_the_libraries_of_models(
    folder, words, problem
):
    """They take seconds to load; so do pictures and the store's database, which come later."""
    code = (
        "import sys; from plaudit.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'transformers', 'tokenizers', 'matplotlib', 'sqlalchemy', 'peft'};"
        "print(sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, *RUN, *words(), "--name", "wrong"],
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout.splitlines()[-1]) == (2, "[]")
    assert said.stderr.startswith(f"plaudit: {problem}")
    assert not Path("runs", "wrong").exists()


# --- prompts that stand twice


def test_held_out_prompts_that_are_trained_on_are_told(folder):
    rows = [{"prompt": f"Cart {i % 10}?", "answer": str(i)} for i in range(12)]
    write_rows(Path("twice.jsonl"), rows)
    done = run_command(*RUN, *REWARD, "--prompts", "twice.jsonl", "--name", "twice")
    assert done.code == 0, done.err
    told = (
        "Note: 2 of the 4 held-out prompts are trained on too: twice.jsonl, line 11, asks what "
        "line 1 asks (also line 12)"
    )
    assert told in done.out
    summary = read_json(Path("runs/twice/report/summary.json"))
    assert summary["held_out_seen"] == 2
    assert notices(summary)[0].startswith("2 of the held-out prompts were trained on too")
    assert told in run_command(*RUN, *REWARD, "--prompts", "twice.jsonl", "--check").out


def test_different_prompts_are_told_nothing(folder):
    assert "Note" not in run_command(*RUN, *REWARD, "--check").out
    assert not notices({"held_out_seen": 0})


# --- --check


@pytest.mark.parametrize(
    "words",
    [
        REWARD,
        [],
        [*FILE, "pairs.jsonl"],
        ["--feedback.source", "people"],
        [*REWARD, "--demonstrations", "wanted.jsonl", "--sft.num-epochs", "1"],
        [*REWARD, "--lora-rank", "2", "--feedback.store", "store.sqlite"],
    ],
)
def test_check_says_what_would_be_done_and_leaves_nothing(folder, words):
    before = sorted(folder.rglob("*"))
    said = run_command(*RUN, *words, "--name", "one", "--check")
    assert (said.code, said.err) == (0, "")
    assert sorted(folder.rglob("*")) == before
    notes = [line for line in said.out.splitlines() if line.startswith("Note")]
    # Those files hold the held-out prompts too, and the keys of pairs are not used with a file.
    assert len(notes) == 2 * ("pairs.jsonl" in words) + ("wanted.jsonl" in words)
    lines = said.out.splitlines()[len(notes) :]
    assert lines[0].startswith("Model: model (LlamaForCausalLM), 4 layers, ")
    assert "  Write about cart number 0.<|im_end|>" in lines
    assert re.search(r"^Time: about \S+ (s|min|h) on this machine", said.out, re.MULTILINE)
    assert lines[-1].startswith("Would be kept in runs/one.")


def test_what_check_says_is_what_is_done(folder):
    said = run_command(*RUN, *REWARD, "--name", "one", "--check").out
    told = dict(re.findall(r"^  (\w+) {2,}(.*)$", said, re.MULTILINE))
    done = run_command(*RUN, *REWARD, "--name", "one")
    assert done.code == 0, done.err
    assert list(told) == list(read_json(Path("runs/one/report/summary.json"))["stage_seconds"])
    steps = dict(re.findall(r"^(\w+): (\d+)/\2  ", done.out, re.MULTILINE))
    assert told["reward_model"] == f"{steps['reward_model']} steps"
    assert told["ppo"] == f"{steps['ppo']} steps of 16 answers to 4 prompts"
    assert told["answers_train"] == "48 answers to 8 prompts"


def test_check_counts_what_a_policy_trains(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("model")
    top = [*model.model.layers[2:].parameters(), *model.model.norm.parameters()]
    trained, total = (sum(p.numel() for p in some) for some in (top, model.parameters()))
    said = run_command(*RUN, *REWARD, "--check").out
    assert f"{total:,} parameters; the policy trains the top 2 layers, {trained:,} parame" in said


def test_check_refuses_a_name_that_is_taken(folder):
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/config.yaml").write_text("pipeline: rlhf\n")
    said = run_command(*RUN, *REWARD, "--name", "one", "--check")
    assert said.code == 2
    assert "there is already an unfinished run at runs/one" in said.err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (12.4, "12 s"), (44, "40 s"), (540, "9 min"), (7200, "2 h"), (4e5, "5 days")],
)
def test_times_are_said_as_they_can_be_known(seconds, said):
    assert said_time(seconds) == said
