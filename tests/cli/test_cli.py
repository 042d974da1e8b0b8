"""The command as a user runs it: help without torch, runs, stops, resumes, sentences, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import plaudit as package
from plaudit.cli.main import VERBS
from plaudit.pipelines.glossary import ALIASES, GLOSSARY
from plaudit.pipelines.registry import find_job
from plaudit.records.recipes import load_recipe, shipped_recipes
from plaudit.records.runs import RunFolder

PACKAGE = Path(package.__file__).parent
JOB = Path(__file__).parent / "walk_job.py"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder to work in that holds walk.yaml."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "walk.yaml"
    path.write_text(
        f"pipeline: {json.dumps(f'{JOB}:run')}\nnum_steps: 5\npace: {{length_m: 2e-1}}\n"
    )
    return "walk.yaml"


def rows(path, name="metrics.jsonl"):
    read = RunFolder.open(path).read_jsonl(name)
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in read]


# --- help


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "--help"], ["explain"], ["ls"]])
def test_help_loads_nothing_heavy(words, tmp_path):
    """So it comes at once: one of these takes up to seconds to load."""
    code = (
        "import sys; from plaudit.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'rich', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "assert sys.argv[1:] == ['ls'] or 'numpy' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_every_verb_is_in_the_help_and_has_help_of_its_own(plaudit):
    _, text, _ = plaudit()
    for verb in VERBS:
        assert f"\n  {verb} " in text
        assert callable(import_module(f"plaudit.cli.{verb}").main)
        code, own, _ = plaudit(verb, "--help")
        assert code == 0
        assert f"plaudit {verb}" in own


def test_the_installed_command_says_its_version():
    command = Path(sys.executable).parent / "plaudit"
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0.1.0\n")


def test_an_unknown_verb_names_the_nearest(plaudit):
    code, _, err = plaudit("rnu")
    assert code == 2
    assert err == "plaudit: no verb 'rnu' (did you mean 'run'?); 'plaudit --help' lists them\n"


# --- run


def test_run_writes_a_folder_and_says_where_things_are(recipe, plaudit):
    code, out, err = plaudit("run", recipe, "--name", "demo", "--pace.length_m", "1e-3")
    assert (code, err) == (0, "")
    assert "walk: 5/5" in out
    assert "objective/scores" in out
    assert "Report: runs/demo/report/report.md" in out
    run = RunFolder.open("demo")
    assert run.finished
    assert run.results is not None
    saved = load_recipe("runs/demo/config.yaml")
    assert saved.values["pace"] == {"length_m": 0.001}  # flag over file
    assert saved.values["num_steps"] == 5  # file over default
    assert len(rows("demo")) == 5
    assert rows("demo", "samples.jsonl")[0]["text"].startswith("a walker\nat")


def test_a_saved_config_runs_again_to_the_same_numbers(recipe, plaudit):
    plaudit("run", recipe, "--name", "one")
    code, _, _ = plaudit("run", "runs/one/config.yaml", "--name", "two")
    assert code == 0
    assert rows("one") == rows("two")


def test_pairs_are_written_with_an_equals_sign(recipe, plaudit):
    words = ["run", recipe, "--name", "demo", "--names", "prompt=the question", "a=b=c"]
    assert plaudit(*words)[0] == 0
    saved = load_recipe("runs/demo/config.yaml")
    assert saved.values["names"] == {"prompt": "the question", "a": "b=c"}
    code, _, err = plaudit("run", recipe, "--names", "prompt")
    assert code == 2
    assert "NAME=VALUE" in err


def test_help_of_a_recipe_lists_every_key_with_its_sentence(recipe, plaudit):
    code, out, _ = plaudit("run", recipe, "--help")
    assert code == 0
    text = " ".join(out.replace("│", " ").split())
    assert "--pace.length_m" in text
    assert "Length of a step in metres. (default: 0.2)" in text
    assert "Steps to walk. (default: 5)" in text
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--num_step", "3"], "--num_steps"),
        (["--num_steps", "x"], "--num_steps x: input should be a valid integer"),
        (["--num_steps", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_made(recipe, plaudit, flags, sentence):
    code, _, err = plaudit("run", recipe, *flags)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "rlfh"], "no recipe 'rlfh'"),
        (["run", "--num_steps", "3"], "name a recipe before --num_steps"),
        (["run", "walk.yaml", "--name"], "--name needs a value"),
        (["run", "walk.yaml", "--name", "a", "--out", "b"], "give one of them"),
        (["run", "--resume", "nothing"], "no run at runs/nothing"),
        (["show", "nothing"], "no run at runs/nothing"),
        (["cp", "rlhf", "walk.yaml"], "walk.yaml exists"),
    ],
)
def test_wrong_words_are_sentences(recipe, plaudit, words, sentence):
    code, out, err = plaudit(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("pipeline", "sentence"),
    [
        ("rlfh", "no pipeline 'rlfh' (did you mean 'rlhf'?)"),
        ("nowhere.py:run", "pipeline file nowhere.py does not exist"),
        ("no_such_module:run", "pipeline module 'no_such_module' could not be imported"),
        (f"{JOB}:runn", "has no function 'runn' (did you mean 'run'?)"),
        (f"{JOB}:run_without_config", "must be annotated with a plaudit Config"),
    ],
)
def test_a_pipeline_that_cannot_be_found_is_a_sentence(recipe, plaudit, pipeline, sentence):
    Path("other.yaml").write_text(f"pipeline: {json.dumps(pipeline)}\n")
    code, _, err = plaudit("run", "other.yaml")
    assert code == 2
    assert sentence in err


def test_a_job_may_import_files_beside_its_own_when_it_runs(tmp_path):
    (tmp_path / "job.py").write_text(
        "from __future__ import annotations\n"
        "from plaudit.records.config import Config\n"
        "class Mine(Config): pass\n"
        "def run(config: Mine):\n    import beside_job\n    return {'x': beside_job.x}\n"
    )
    (tmp_path / "beside_job.py").write_text("x = 3\n")
    job = find_job(f"{tmp_path}/job.py:run")
    assert job.run(job.config()) == {"x": 3}
    assert "beside_job" not in sys.modules


def test_an_unknown_key_in_the_file_is_a_sentence_with_its_line(recipe, plaudit):
    Path(recipe).write_text(Path(recipe).read_text() + "num_stpes: 3\n")
    code, _, err = plaudit("run", recipe)
    assert code == 2
    assert "unknown key 'num_stpes' (file walk.yaml, line 4); did you mean 'num_steps'?" in err


def test_input_refused_by_the_job_leaves_no_folder_behind(recipe, plaudit):
    code, _, err = plaudit("run", recipe, "--name", "demo", "--pace.length_m", "2000")
    assert code == 2
    assert err == "plaudit: pace.length_m is more than a person can walk\n"
    assert not Path("runs/demo").exists()


# --- stop and go on


def test_ctrl_c_saves_and_resume_gives_the_undisturbed_run(recipe, plaudit):
    code, _, err = plaudit("run", recipe, "--name", "parts", "--signal_at", "3")
    assert code == 130
    assert "Saved. Continue with: plaudit run --resume runs/parts" in err
    assert "Traceback" not in err
    assert "unfinished, saved in walk at step 3" in plaudit("ls")[1]
    assert "Continue with: plaudit run --resume runs/parts" in plaudit("show", "parts")[1]
    assert plaudit("run", "--resume", "parts")[0] == 0
    assert plaudit("run", recipe, "--name", "whole")[0] == 0
    assert rows("parts") == rows("whole")
    assert rows("parts", "samples.jsonl") == rows("whole", "samples.jsonl")
    assert RunFolder.open("parts").results == RunFolder.open("whole").results


def test_a_killed_run_goes_on_to_the_undisturbed_numbers(recipe, plaudit):
    command = Path(sys.executable).parent / "plaudit"
    words = [command, "run", recipe, "--name", "killed", "--kill_at", "4"]
    killed = subprocess.run(words, capture_output=True, text=True)
    assert killed.returncode == -9
    assert [row["step"] for row in rows("killed")] == [1, 2, 3]
    assert plaudit("run", "--resume", "killed")[0] == 0
    assert plaudit("run", recipe, "--name", "whole")[0] == 0
    assert rows("killed") == rows("whole")
    assert RunFolder.open("killed").results == RunFolder.open("whole").results


def test_a_crash_shows_its_traceback_and_the_way_back(recipe, plaudit):
    code, _, err = plaudit("run", recipe, "--name", "crash", "--fail_at", "4")
    assert code == 1
    assert "ZeroDivisionError: fell over" in err
    assert err.endswith(
        "plaudit: what was done is in runs/crash; retry: plaudit run --resume runs/crash\n"
    )
    assert plaudit("run", "--resume", "runs/crash")[0] == 0
    assert [row["step"] for row in rows("crash")] == [1, 2, 3, 4, 5]


def test_a_resumed_run_keeps_its_keys(recipe, plaudit):
    plaudit("run", recipe, "--name", "parts", "--signal_at", "3")
    code, _, err = plaudit("run", "--resume", "parts", "--num_steps", "9")
    assert code == 2
    assert "leave out --num_steps 9" in err


def test_a_finished_run_is_neither_resumed_nor_overwritten(recipe, plaudit):
    plaudit("run", recipe, "--name", "demo")
    assert "is finished" in plaudit("run", "--resume", "demo")[2]
    assert "choose another name" in plaudit("run", recipe, "--name", "demo")[2]


def test_a_run_goes_on_from_another_folder_as_its_paths_start_where_it_began(
    recipe, plaudit, tmp_path, monkeypatch
):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "walk.py").write_text(JOB.read_text())
    Path("walk.yaml").write_text("pipeline: jobs/walk.py:run\nnum_steps: 5\n")
    assert plaudit("run", recipe, "--name", "parts", "--signal_at", "3")[0] == 130
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    code, out, err = plaudit("run", "--resume", "../runs/parts")
    assert (code, err) == (0, "")
    assert f"Run folder: {tmp_path / 'runs' / 'parts'}" in out
    assert Path.cwd() == tmp_path / "other"


# --- check


def test_check_of_a_job_without_one_says_so_and_leaves_nothing(recipe, plaudit, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = plaudit("run", recipe, "--check", "--num_steps", "7", "--name", "new")
    assert (code, err) == (0, "")
    assert "offers no check of more than these" in out
    assert "Would be kept in runs/new." in out
    assert sorted(tmp_path.rglob("*")) == before


def test_check_calls_the_check_beside_the_job_and_takes_its_refusals(recipe, plaudit, tmp_path):
    own = (
        "\n\ndef check(config, place):\n"
        "    if config.num_steps > 99:\n"
        "        raise UserError(f'{config.num_steps} steps are too many')\n"
        "    yield f'Walk: {config.num_steps} steps, to {place}'\n"
    )
    (tmp_path / "own.py").write_text(JOB.read_text() + own)
    Path("own.yaml").write_text("pipeline: own.py:run\n")
    code, out, _ = plaudit("run", "own.yaml", "--check", "--num_steps", "7", "--name", "new")
    assert code == 0
    assert out.startswith("Walk: 7 steps, to runs/new\n")
    code, _, err = plaudit("run", "own.yaml", "--check", "--num_steps", "100")
    assert (code, err) == (2, "plaudit: 100 steps are too many\n")
    assert not Path("runs").exists()


def test_check_may_import_files_beside_its_own(recipe, plaudit, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "paces_beside.py").write_text("LONGEST = 9\n")
    own = "\n\ndef check(config, place):\n    from paces_beside import LONGEST\n"
    own += "    yield f'At most {LONGEST}'\n"
    (tmp_path / "jobs" / "walk.py").write_text(JOB.read_text() + own)
    Path("own.yaml").write_text("pipeline: jobs/walk.py:run\n")
    code, out, _ = plaudit("run", "own.yaml", "--check")
    assert code == 0
    assert out.startswith("At most 9\n")


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_folder_that_cannot_be_made_is_told(recipe, plaudit, check):
    Path("file").write_text("")
    code, _, err = plaudit("run", recipe, "--out", "file/run", *check)
    assert code == 2
    assert "file/run cannot be made: " in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mdp/value_iteration"], "World: frozenlake-8x8, 64 states × 4 actions"),
        (["mdp/q_learning"], "Learn: q_learning, "),
        (["mdp/pomdp"], "World: tiger, 2 states × 3 actions × 2 observations"),
        (["mdp/game"], "World: rock-paper-scissors, a MatrixGame"),
        (
            ["control/ppo"],
            "Environment: CartPole-v1, which was made once and can be learned by ppo",
        ),
    ],
)
def test_check_of_the_jobs_that_come_with_us(plaudit, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = plaudit("run", *words, "--check")
    assert (code, err) == (0, "")
    assert said in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["mdp/value_iteration", "--world", "frozenlak"], "no world 'frozenlak'"),
        (["mdp/q_learning", "--learner", "q_lerning"], "q_lerning"),
        (["mdp/game", "--world", "tiger"], "tiger is a POMDP, not a game"),
        (["control/sac", "--env", "CartPole-v1"], "needs a box action space, found discrete"),
        (["--resume", "x", "--check"], "leave out --check"),
    ],
)
def test_check_refuses_what_the_job_refuses(plaudit, tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    code, _, err = plaudit("run", *words, *(["--check"] if "--check" not in words else []))
    assert code == 2
    assert problem in err
    assert not list(tmp_path.iterdir())


# --- looking


def test_show_tells_of_finished_and_of_untouched_runs(recipe, plaudit):
    plaudit("run", recipe, "--name", "demo")
    code, out, _ = plaudit("show", "demo")
    assert code == 0
    assert "runs/demo: finished" in out
    assert "walk: " in out
    assert "objective/scores" in out
    assert "gold_after" in out
    assert "Report: runs/demo/report/report.md" in out
    Path("runs/demo/results.json").unlink()
    Path("runs/demo/metrics.jsonl").write_text('{"torn')
    code, out, _ = plaudit("show", "demo")
    assert code == 0
    assert "unfinished" in out


def test_explain_knows_names_aliases_and_endings(plaudit):
    for name in ("objective/kl", "kl", "approxkl", "gold_before", "win_rate_interval"):
        code, out, _ = plaudit("explain", name)
        assert code == 0
        assert "formula:" in out
    code, _, err = plaudit("explain", "objective/k1")
    assert code == 2
    assert "did you mean 'objective/kl'" in err


def test_explain_tells_the_scores_of_the_results_apart(plaudit):
    """The reward model's own score is not the reward of a step, KL taken off, that PPO climbs."""
    for name in ("reward_before", "reward_after", "reward_win_rate", "held_out_seen", "seconds"):
        code, out, _ = plaudit("explain", name)
        assert code == 0
        assert out.startswith(f"{name}  ("), out
    assert "reward model" in plaudit("explain", "reward_before_interval")[1]
    assert plaudit("explain", "reward")[1].startswith("objective/rlhf_reward")


def test_show_tells_results_with_intervals_in_the_order_in_which_they_are_read(recipe, plaudit):
    plaudit("run", recipe, "--name", "demo")
    results = {
        "seconds": 12.5, "reward_model_accuracy": 0.7, "held_out_seen": 0, "reward_win_rate": 0.9,
        "gold_before": 0.25, "gold_after": 0.5, "win_rate": 0.75, "kl": 2.0, "reward_before": 1.0,
        "win_rate_interval": [0.625, 0.875], "gold_before_interval": [0.125, 0.375],
    }  # fmt: skip
    Path("runs/demo/results.json").write_text(json.dumps(results))
    out = plaudit("show", "demo")[1]
    table = [line.split("  ") for line in out[out.index("results") :].splitlines()]
    told = {cells[1]: [cell.strip() for cell in cells[2:] if cell.strip()] for cells in table[2:]
            if len(cells) > 2 and cells[1]}  # fmt: skip
    assert list(told) == [
        "win_rate", "gold_before", "gold_after", "reward_win_rate", "reward_before", "kl",
        "reward_model_accuracy", "held_out_seen", "seconds",
    ]  # fmt: skip
    assert told["win_rate"][0] == "0.75 (0.625 to 0.875)"
    assert told["gold_before"][0] == "0.25 (0.125 to 0.375)"
    assert told["kl"][0] == "2"
    assert all(len(cells) == 2 for cells in told.values()), "each has a meaning"


def test_show_names_one_step_for_one_stop(recipe, plaudit):
    """Where the last line was logged before the last checkpoint, and where it was after."""
    assert plaudit("run", recipe, "--name", "demo", "--signal_at", "3")[0] == 130
    log = Path("runs/demo/metrics.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["step"] == 3
    for kept, said in (
        (lines, "walk: stopped, step 3, 0:00"),
        (lines[:-1], "walk: stopped, step 3, 0:00"),
        ([*lines, lines[-1].replace('"step": 3', '"step": 5')],
         "walk: stopped, step 5 (saved at 3), 0:00"),
    ):  # fmt: skip
        log.write_text("".join(kept))
        out = plaudit("show", "demo")[1]
        assert "unfinished, saved in walk at step 3" in out
        assert said in out


def test_a_resumed_stage_says_where_it_goes_on(recipe, plaudit):
    out = plaudit("run", recipe, "--name", "demo", "--signal_at", "3")[1]
    assert "walk: begins" in out
    out = plaudit("run", "--resume", "demo")[1]
    assert "walk: goes on after step 3\n" in out
    assert "begins" not in out


def test_the_glossary_is_whole():
    for name, metric in GLOSSARY.items():
        for text in (metric.sentence, metric.healthy):
            assert text.endswith("."), f"{name}: {text}"
        assert metric.formula
    assert set(ALIASES.values()) <= set(GLOSSARY)
    assert not set(ALIASES) & set(GLOSSARY)


def test_every_logged_name_is_in_the_glossary():
    stems = {name.partition("/")[0] for name in GLOSSARY if "/" in name}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        found |= set(re.findall(rf'"((?:{"|".join(stems)})/[a-z_0-9]+)"', path.read_text()))
    assert len(found) > 10
    assert found <= set(GLOSSARY)


def test_env_lists_what_a_bug_report_needs(plaudit):
    code, out, _ = plaudit("env")
    assert code == 0
    for word in ("python", "cores", "memory", "devices", "torch", "plaudit"):
        assert f"\n{word}" in "\n" + out


def test_cp_gives_a_recipe_of_your_own(recipe, plaudit):
    code, out, _ = plaudit("cp", "rlhf", "mine.yaml")
    assert code == 0
    assert "plaudit run mine.yaml" in out
    assert load_recipe("mine.yaml").pipeline == "rlhf"


def test_a_full_copy_has_every_key_and_its_sentence(recipe, plaudit):
    assert plaudit("cp", recipe, "full.yaml", "--full")[0] == 0
    text = Path("full.yaml").read_text()
    assert "# Steps to walk.\nnum_steps: 5\n" in text
    assert "  # Length of a step in metres.\n  length_m: 0.2\n" in text
    assert plaudit("run", "full.yaml")[0] == 0


def test_every_shipped_recipe_is_listed(plaudit):
    _, out, _ = plaudit("ls")
    assert shipped_recipes()
    for name in shipped_recipes():
        assert f"  {name} " in out
