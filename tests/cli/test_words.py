"""One voice for every refusal, help of any width, and commands that a shell takes as they are printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from plaudit.cli.flags import flags_of, help_page, read_flags
from plaudit.cli.main import VERBS
from plaudit.records.config import Config, resolve
from plaudit.records.errors import UserError
from plaudit.records.recipes import Recipe
from plaudit.records.runs import RunFolder

JOB = Path(__file__).parent / "walk_job.py"
COMMAND = [sys.executable, "-m", "plaudit.cli.main"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in that holds walk.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("walk.yaml").write_text(f"pipeline: {json.dumps(f'{JOB}:run')}\nnum_steps: 3\n")
    return tmp_path


# --- refusals


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "walk.yaml", "--num_stpes", "3"], "unknown key --num_stpes (did you mean --num_steps?)"),
        (["run", "walk.yaml", "--pace.lenght-m", "3"], "unknown key --pace.lenght-m (did you mean --pace.length_m?)"),
        (["run", "walk.yaml", "--length-m", "3"], "unknown key --length-m (did you mean --pace.length_m?)"),
        (["run", "walk.yaml", "--pace", "3"], "--pace is a group of keys: give one of them, such as --pace.length_m"),
        (["run", "walk.yaml", "--resum", "x"], "unknown key --resum (did you mean --resume?)"),
        (["run", "walk.yaml", "--num-steps"], "--num_steps needs a value: INT"),
        (["run", "walk.yaml", "--num-steps", "--seed"], "--num_steps needs a value: INT"),
        (["run", "walk.yaml", "--num-steps", "1.5"], "--num_steps 1.5: input should be a valid integer"),
        (["run", "walk.yaml", "--num-steps="], "--num_steps '': input should be a valid integer"),
        (["run", "walk.yaml", "--pace.length_m", "-1"], "--pace.length_m -1: input should be greater than 0"),
        (["run", "walk.yaml", "--names", "a"], "--names takes NAME=VALUE, not 'a'"),
        (["run", "walk.yaml", "stray"], "'stray' belongs to no key: keys are written --key value"),
        (["run", "rlhf", "--feedback.source", "fiel"], "'people' (did you mean 'file'?)"),
        (["run", "rlhf", "--lr", "1"], "did you mean --sft.lr or --reward_model.lr or --ppo.lr?"),
        (["run", "rlhf", "--ppo.num-generations", "8"], "unknown key --ppo.num-generations; num_generations is called --ppo.answers_per_prompt here"),
        (["run", "rlhf", "--num-generations=8"], "num_generations is called --feedback.answers_per_prompt or --ppo.answers_per_prompt or "),
        (["run", "rlhf", "--init_kl_coef", "0"], "init_kl_coef is called --ppo.kl_coef or --grpo.kl_coef or --rloo.kl_coef here"),
        (["run", "rlhf", "--max-tokens", "9"], "max_tokens is called --sampling.max_new_tokens here"),
        (["run", "rlhf", "--repetition-penalty", "1.1"], "unknown key --repetition-penalty; with it a token's probability"),
        (["run", "rlhf", "--sampling.repetition_penalty=1"], "unknown key --sampling.repetition_penalty; with it a token's"),
        (["run", "control/ppo", "--activation", "relo"], "(did you mean 'relu'?)"),
        (["run", "mdp/solve", "--wrld", "x"], "unknown key --wrld (did you mean --world?)"),
        (["sweep", "walk.yaml", "--seeds", "0", "--num-stepps", "3"], "(did you mean --num_steps?)"),
        (["sweep", "walk.yaml", "--seeds", "0", "--reech", "3"], "(did you mean --reach?)"),
        (["show"], "missing: run"),
        (["show", "--rnu"], "show has no option --rnu"),
        (["show", "a", "b"], "'b' is one word too many"),
        (["eval", "x", "--episods", "3"], "eval has no option --episods (did you mean '--episodes'?)"),
        (["eval", "x", "--episodes", "many"], "--episodes many: expected a whole number"),
        (["eval", "x", "--episodes"], "--episodes needs a value"),
        (["ls", "world"], "(did you mean 'worlds'?): expected recipes or worlds"),
        (["cp", "rlhf"], "missing: file"),
        (["explain", "a", "b"], "'b' is one word too many"),
        (["env", "--jsn"], "env has no option --jsn"),
        (["feedback"], "missing: import or export or stats"),
        (["feedback", "exprt"], "no 'exprt' (did you mean 'export'?)"),
        (["feedback", "import", "f", "--ratr", "x"], "feedback import has no option --ratr (did you mean '--rater'?)"),
        (["feedback", "stats", "--store", "a", "--run", "b"], "--run and --store cannot both be given"),
    ],
)  # fmt: skip
def test_every_refusal_is_one_sentence(work, plaudit, words, sentence):
    code, out, err = plaudit(*words)
    assert (code, out) in (
        (2, ""),
        (2, "Recipe: control/ppo/CartPole-v1, tuned for this environment\n"),
    )
    assert err.startswith("plaudit: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


class ManyConfig(Config):
    """Of every kind."""

    hidden: tuple[int, ...] = Field((64, 64), description="Units of each layer.")
    whiten: bool = Field(True, description="Whether to.")
    limit: int | None = Field(5, description="At most so many.")
    words: dict[str, str] = Field({"a": "b"}, description="Names by name.")
    rate: float = Field(0.5, description="How fast.")


RECIPE = Recipe("many.yaml", "many", {"words": {"c": "d"}})


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--hidden 3 4 5 --rate 1e-3", {"hidden": (3, 4, 5), "rate": 1e-3}),
        ("--hidden --rate=-2", {"hidden": (), "rate": -2.0}),
        ("--no-whiten", {"whiten": False}),
        ("--whiten false --rate 1", {"whiten": False, "rate": 1.0}),
        ("--no-whiten --whiten", {"whiten": True}),
        ("--whiten=False", {"whiten": False}),
        ("--limit None", {"limit": None}),
        ("--limit 1 --limit 2", {"limit": 2}),
        ("--words x=1 y=a=b", {"words": {"x": "1", "y": "a=b"}}),
        ("--words", {"words": {}}),
        ("--hidden 1 --rate 2 --hidden 3 4", {"hidden": (1, 3, 4), "rate": 2.0}),
        ("--hidden=1 --hidden --hidden=3", {"hidden": (1, 3)}),
        ("--words x=1 --words y=2 x=3", {"words": {"x": "3", "y": "2"}}),
        ("", {}),
    ],
)
def test_words_become_values_by_the_type_of_their_key(words, values):
    read = read_flags(ManyConfig, words.split(), ())
    config = resolve(ManyConfig, RECIPE, words=read)
    assert config == ManyConfig(**{"words": {"c": "d"}, **values})


def test_a_switch_takes_no_other_word():
    with pytest.raises(UserError, match="--whiten maybe: expected true, false or nothing"):
        read_flags(ManyConfig, ["--whiten", "maybe"], ())
    with pytest.raises(UserError, match="unknown key --no-rate"):
        read_flags(ManyConfig, ["--no-rate"], ())


# --- help


@pytest.mark.parametrize("columns", [20, 33, 59, 60, 80, 121, 200])
@pytest.mark.parametrize(
    "words",
    [
        [],
        *([verb, "--help"] for verb in VERBS),
        ["feedback", "import", "--help"],
        ["run", "walk.yaml", "--help"],
        ["run", "rlhf", "--help"],
        ["run", "control/ppo", "--help"],
    ],
    ids=" ".join,
)
def test_help_is_no_wider_than_the_terminal(work, plaudit, monkeypatch, words, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = plaudit(*words)
    assert (code, err) == (0, "")
    lines = out.removeprefix(
        "Recipe: control/ppo/CartPole-v1, tuned for this environment\n"
    ).splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) < 40 * len(out) / columns  # no column of single letters


def test_help_has_every_key_with_its_sentence_and_value(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    config = ManyConfig(limit=None)
    text = help_page(ManyConfig, config, "plaudit run many", about="Of every kind.", own="End.")
    told = " ".join(text.split())
    assert "--hidden INT ... Units of each layer. (default: 64 64)" in told
    assert "--whiten | --no-whiten Whether to. (default: true)" in told
    assert "--limit INT At most so many. (default: none)" in told
    assert "--words NAME=VALUE ... Names by name. (default: a=b)" in told
    assert "--rate NUMBER How fast. (default: 0.5)" in told
    assert [flag.name for flag in flags_of(ManyConfig)] == [
        "--hidden", "--whiten", "--limit", "--words", "--rate"
    ]  # fmt: skip


# --- names and commands


def test_printed_commands_work_as_they_are(work, plaudit):
    name = "my run's; `x` $HOME"
    _, out, _ = plaudit("run", "walk.yaml", "--name", name)
    shown = next(line for line in out.splitlines() if line.startswith("Numbers: "))
    words = shlex.split(shown.removeprefix("Numbers: ").partition("; what one means")[0])
    assert words == ["plaudit", "show", f"runs/{name}"]
    assert plaudit(*words[1:])[0] == 0
    _, _, err = plaudit("run", "walk.yaml", "--name", "a b", "--signal_at", "2")
    words = shlex.split(err.rpartition("Continue with: ")[2])
    assert words == ["plaudit", "run", "--resume", "runs/a b"]
    assert f"Continue with: {shlex.join(words)}" in plaudit("show", "a b")[1]
    _, _, err = plaudit("run", "walk.yaml", "--name", "a b")
    assert "continue it with plaudit run --resume 'runs/a b', or choose another name" in err
    assert plaudit(*words[1:])[0] == 0
    _, out, _ = plaudit("cp", "rlhf", "my own.yaml")
    assert out.endswith("plaudit run 'my own.yaml'\n")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "a/b",
            "is a path, but a run is kept in runs/NAME; a folder elsewhere is given by --out a/b",
        ),
        ("../up", "--out ../up"),
        ("/tmp", "--out /tmp"),
        ("a/", "is a path"),
        ("..", "begins with '.'"),
        (".hidden", "begins with '.'"),
        ("-x", "begins with '-'"),
        ("~", "begins with '~'"),
        ("", "--name is empty"),
        ("  ", "--name is empty"),
        (" a", "begins or ends with a space"),
        ("a ", "begins or ends with a space"),
        ("a.", "ends with a full stop"),
        ("a\nb", "holds \\n"),
        ("a\tb", "holds \\t"),
        ("a\x1b[2Jb", "holds \\x1b"),
        ("a\0b", "holds \\x00"),
        ("a\u202eb", "holds \\u202e"),
        ("a\u2028b", "holds \\u2028"),
        ("a" * 256, "has 256 bytes"),
        ("é" * 128, "has 256 bytes"),
    ],
)
@pytest.mark.parametrize("verb", [["run", "walk.yaml"], ["sweep", "control/ppo", "--seeds", "0"]])
def test_what_is_not_the_name_of_one_folder_is_refused(work, plaudit, verb, name, sentence):
    code, _, err = plaudit(*verb, f"--name={name}")
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "name", ["demo", "a b", "ünï 日本", "v1.2", "x-", "a" * 255, "con", "a\\b"]
)
def test_a_name_that_is_taken_is_found_again_by_it(work, plaudit, name):
    Path(name).mkdir()  # a folder that is called the same, such as a model's
    Path(name, "config.yaml").write_text("pipeline: other\n")
    assert plaudit("run", "walk.yaml", "--name", name, "--signal_at", "2")[0] == 130
    assert plaudit("run", "--resume", name)[0] == 0
    assert plaudit("show", name)[0] == 0
    assert [path.name for path in Path("runs").iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "walk.yaml", "--out", ""], "--out is empty"),
        (["run", "walk.yaml", "--out", "a" * 300], "cannot be made: File name too long"),
        (["run", "walk.yaml", "--out", "walk.yaml/x"], "cannot be made: Not a directory"),
        (["run", "walk.yaml", "--out", "a\0b"], "cannot be made: "),
        (["run", "--resume", ""], "no run is named"),
        (["run", "--resume", "a" * 300], "no run at runs/aaa"),
        (["show", "a\0b"], "no run at runs/a\\x00b"),
    ],
)
def test_places_that_cannot_be_are_sentences(work, plaudit, words, sentence):
    code, _, err = plaudit(*words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_a_tilde_that_the_shell_left_is_the_home_folder(work, plaudit, monkeypatch):
    monkeypatch.setenv("HOME", str(work / "home"))
    assert plaudit("run", "walk.yaml", "--out=~/first")[0] == 0
    assert (work / "home" / "first" / "results.json").exists()


# --- locales and terminals


BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("output", [{}, {"PYTHONIOENCODING": "ascii:strict"}])
def test_names_that_the_locale_cannot_write_run_all_the_same(work, output):
    Path("wälk.yaml").write_text(Path("walk.yaml").read_text())
    env = os.environ | BARE | output | {"NO_COLOR": "1", "TERM": "dumb"}
    words = ["run", "wälk.yaml", "--name", "é", "--names", "ключ=値"]
    done = subprocess.run([*COMMAND, *words], env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    system = json.loads(Path("runs/é/system.json").read_bytes())
    assert system["command"][1:] == words
    assert 'ключ: "値"' in Path("runs/é/config.yaml").read_text("utf-8").replace('"ключ"', "ключ")
    shown = subprocess.run([*COMMAND, "show", "é"], env=env, capture_output=True)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"\x1b" not in shown.stdout


@pytest.mark.parametrize(
    "words", [["run", "w\udce4lk.yaml"], ["run", "walk.yaml", "--name", "\udce9"]]
)
def test_a_name_that_is_no_text_is_refused(work, words):
    """A file that was called in Latin-1, on a system where names are UTF-8."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not UTF-8 text: rename that file or folder" in done.stderr
    assert done.stderr.count("\n") == 1
    with pytest.raises(UserError, match="has a name that is not UTF-8"):
        RunFolder.create(work / "\udce9", ManyConfig(), pipeline="many")


def test_a_character_that_the_stream_lacks_is_replaced(work):
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([*COMMAND, "explain", "ключ"], env=env, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"plaudit: no metric '????' in the glossary")
    done = subprocess.run([*COMMAND, "explain"], env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_show_is_no_wider_than_the_terminal(work, plaudit, monkeypatch, columns):
    plaudit("run", "walk.yaml", "--name", "a")
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = plaudit("show", "a")
    table, _, closing = out.partition("Report: ")
    assert max(len(line.rstrip()) for line in table.splitlines()) <= columns
    assert "objective/scores" in table
    assert "Mean score" in " ".join(table.split())
    assert "Numbers: plaudit show runs/a;" in closing  # a command is left to the terminal to fold
