"""Functions in processes of their own: order, time-outs, deaths, and an end with the parent."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from judged_answers import answers, file_of
from plaudit.records.errors import UserError
from plaudit.rewards.functions import load_reward_function
from plaudit.rewards.judges import FunctionJudge

NONE = math.nan
QUICK = 3.0
"""Seconds in which a call that does nothing is done, however busy the machine."""

FUNCTIONS = """
import os, re, subprocess, sys, time
from pathlib import Path
from helper import twice

calls = 0

def pid(completion):
    return os.getpid()

def uneven(completion):
    time.sleep(0.05 * (len(completion) % 3))
    return None if completion == "abstain" else twice(len(completion))

def faulty(completion, seen=None):
    if completion == "raise":
        raise ValueError("no")
    if completion == "leave":
        sys.exit(3)
    if completion == "die":
        os._exit(3)
    if completion == "stop":
        os.kill(os.getpid(), 9)
    if completion == "endless":
        while True:
            pass
    if completion == "pattern":  # one call in C, which holds the interpreter's lock
        re.match("(a*)*b", "a" * 60)
    if completion == "tree":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        Path(seen).write_text(str(child.pid))
        time.sleep(1000)
    return len(completion)

def counted(completion):
    global calls
    calls += 1
    return calls

def odd(completion):
    return {"nan": float("nan"), "text": "x", "list": [1.0]}.get(completion, 1.0)

def promised(completion):
    async def later():
        return len(completion)
    return later()
"""


def judge_of(folder, name, *, workers=2, timeout=None):
    file_of(folder, "def twice(x):\n    return 2 * x\n", "helper")
    function = load_reward_function(f"{file_of(folder, FUNCTIONS)}:{name}")
    return FunctionJudge([function], workers=workers, timeout=timeout)


def scores(judge, *texts, **columns):
    (found,) = judge(answers(*texts, **columns)).values()
    return [None if math.isnan(x) else x for x in found.tolist()]


def is_there(pid: int) -> bool:
    """Whether a process exists and is more than a name that nobody has asked for yet."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_answers_come_in_order_from_other_processes(tmp_path):
    judge = judge_of(tmp_path, "uneven", workers=3)
    texts = ["abcd"[: i % 5] for i in range(20)] + ["abstain"]
    assert scores(judge, *texts) == [2 * len(text) for text in texts[:-1]] + [None]
    judge.close()
    assert scores(judge, "ab") == [4]


def test_there_are_as_many_processes_as_are_needed_and_they_stay(tmp_path):
    judge = judge_of(tmp_path, "pid", workers=2)
    first = scores(judge, "a")
    assert first == scores(judge, "a")
    assert len(set(scores(judge, *["a"] * 50)) | set(first)) <= 2
    assert os.getpid() not in first
    judge = judge_of(tmp_path, "counted", workers=1)
    assert scores(judge, "a", "b", "c") == [1, 2, 3]
    assert scores(judge, "d") == [4]  # the module was loaded once


def test_functions_of_one_judge_share_its_processes(tmp_path):
    file_of(tmp_path, "def twice(x):\n    return 2 * x\n", "helper")
    file = file_of(tmp_path, FUNCTIONS)
    functions = [load_reward_function(f"{file}:{name}") for name in ("pid", "uneven", "pid")]
    found = FunctionJudge(functions, workers=1)(answers("a"))
    assert found["uneven"].tolist() == [2]
    assert torch.equal(found["pid"], found["pid_2"])


def test_a_failure_or_a_death_abstains_and_the_others_are_judged(tmp_path):
    judge = judge_of(tmp_path, "faulty")
    texts = ("a", "raise", "ab", "leave", "die", "stop", "abc", "die", "abcd")
    assert scores(judge, *texts) == [1, None, 2, None, None, None, 3, None, 4]
    assert judge.taken_failures() == {"faulty": 5}
    assert judge.first_failure == {
        "faulty": f"ValueError: no ({tmp_path}/mine.py, line 17, in faulty)"
    }
    for text, said in [
        ("leave", r"SystemExit: it called sys.exit\(3\) \(.*line 19"),
        ("die", "its process ended with exit code 3"),
        ("stop", "its process ended by signal 9"),
    ]:
        with pytest.raises(UserError, match=f"failed on all 1 answers of a batch; .*{said}"):
            scores(judge, text)
    assert scores(judge, "a") == [1]


@pytest.mark.parametrize("text", ["endless", "pattern"])
def test_what_is_late_is_ended_alone_and_another_takes_its_place(tmp_path, text):
    judge = judge_of(tmp_path, "faulty", timeout=QUICK)
    assert scores(judge, "a", text, "ab", "abc") == [1, None, 2, 3]
    assert judge.first_failure == {"faulty": "TimeoutError: no answer within 3 s"}
    before = {member.process.pid for member in judge._workers._members}
    assert scores(judge, "a", "ab", "abc") == [1, 2, 3]
    assert judge.taken_failures() == {"faulty": 1}
    judge.close()
    assert not any(is_there(pid) for pid in before)


def test_what_a_late_call_has_begun_ends_with_it(tmp_path):
    judge = judge_of(tmp_path, "faulty", timeout=QUICK)
    seen = str(tmp_path / "pid")
    assert scores(judge, "tree", "a", seen=[seen, seen]) == [None, 1]
    child = int(Path(seen).read_text())
    wait_until(lambda: not is_there(child))


def test_numbers_are_checked_as_they_are_in_this_process(tmp_path):
    judge = judge_of(tmp_path, "odd")
    for text, value in [("nan", "nan"), ("text", "'x'"), ("list", r"\[1.0\]")]:
        with pytest.raises(
            UserError, match=rf"the reward odd returned {value} for completion 1 \("
        ):
            scores(judge, "a", text)
    assert scores(judge_of(tmp_path, "promised"), "a", "ab") == [1, 2]


def top_level(completion):
    return len(completion)


def test_a_function_without_a_name_goes_by_pickle():
    assert scores(FunctionJudge([top_level], workers=1), "a", "ab") == [1, 2]

    def inner(completion):
        return 0.0

    with pytest.raises(UserError, match="the reward inner cannot be called in worker processes"):
        FunctionJudge([inner], workers=1)
    lock = [open(os.devnull)]  # noqa: SIM115
    with pytest.raises(UserError, match="cannot be sent to another process"):
        scores(FunctionJudge([top_level_with_column], workers=1), "a", column=lock)
    lock[0].close()


def top_level_with_column(completion, column):
    return 0.0


def test_a_file_that_is_gone_is_told(tmp_path):
    judge = judge_of(tmp_path, "pid")
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UserError, match=r"reward file .*mine.py does not exist"):
        scores(judge, "a")


def test_processes_end_when_nobody_holds_them(tmp_path):
    judge = judge_of(tmp_path, "pid")
    pids = {int(pid) for pid in scores(judge, *"abcdef")}
    del judge
    wait_until(lambda: not any(map(is_there, pids)))


# --- whole programs


SCRIPT = """
import signal, sys
from plaudit.rewards.workers import Source, Workers

def work():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    workers = Workers(2, timeout=None)
    rows = [{"completion": text} for text in sys.argv[2:]]
    assert workers.outcomes(Source(sys.argv[1]), rows) == [1.0] * len(rows)

{guard}work()
"""

WRITES = """
import os, re, sys, time
from pathlib import Path

def score(completion):
    here = Path(__file__).parent
    (here / f"pid-{completion}.tmp").write_text(str(os.getpid()))
    (here / f"pid-{completion}.tmp").rename(here / f"pid-{completion}")
    if completion == "pattern":
        re.match("(a*)*b", "a" * 60)
    if completion == "endless":
        while True:
            pass
    return 1.0
"""


@contextlib.contextmanager
def begun(folder: Path, *texts: str, guard: str = "if __name__ == '__main__':\n    "):
    """A script that judges the texts, in a process group of its own."""
    script = Path(file_of(folder, SCRIPT.replace("{guard}", guard), "script"))
    with subprocess.Popen(
        [sys.executable, script, f"{file_of(folder, WRITES)}:score", *texts],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_program_in_the_middle_of_a_call(tmp_path, number):
    """Ctrl-C reaches the whole group; a program that is killed cannot tell anybody."""
    with begun(tmp_path, "pattern", "endless") as script:
        files = [tmp_path / "pid-pattern", tmp_path / "pid-endless"]
        wait_until(lambda: all(file.exists() for file in files) or script.poll() is not None)
        assert script.poll() is None, script.communicate()
        pids = [int(file.read_text()) for file in files]
        assert all(map(is_there, pids))
        if number == signal.SIGINT:
            os.killpg(script.pid, number)
        else:
            os.kill(script.pid, number)
        _, err = script.communicate(timeout=60)
    wait_until(lambda: not any(map(is_there, pids)))
    assert script.returncode == -number
    last = err.split()[-1:]
    assert last == (["KeyboardInterrupt"] if number == signal.SIGINT else [])


def test_a_program_ends_though_its_processes_wait_for_more(tmp_path):
    with begun(tmp_path, "a", "b") as script:
        assert script.communicate(timeout=60) == ("", "")
    assert script.returncode == 0
    assert not any(is_there(int((tmp_path / f"pid-{name}").read_text())) for name in "ab")


def test_a_script_without_a_main_guard_is_told_what_to_write(tmp_path):
    with begun(tmp_path, "a", guard="") as script:
        _, err = script.communicate(timeout=120)
    assert script.returncode == 1
    last = err.strip().splitlines()[-1]
    assert "a process for rewards ended with exit code 1 before it had begun" in last
    assert last.endswith("if __name__ == '__main__':")
