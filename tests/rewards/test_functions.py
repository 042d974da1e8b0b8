"""Rewards as people write them: what they use, what they switch, what they give back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import warnings

import numpy as np
import pytest
import torch

from plaudit.records.errors import UserError
from plaudit.rewards.functions import check_columns, checked_scores, load_reward_function


def reward(folder, text, name="score", **files):
    """A reward of a file in `folder`, which is made, with other files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in {"mine": text, **files}.items():
        (folder / f"{file}.py").write_text(content)
    return load_reward_function(f"{folder / 'mine.py'}:{name}")


def scores(function, *answers, **columns):
    return checked_scores(function, ["p"] * len(answers), list(answers), columns, name="mine")


POOL = """
from __future__ import annotations
import multiprocessing, warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from helper import twice

@dataclass
class Mark:
    value: float

def one(text: str) -> Mark:
    return Mark(float(len(text)))

def score(prompts, completions):
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    context = multiprocessing.get_context("{method}")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        marks = list(pool.map(one, completions))
        assert all(type(mark) is Mark for mark in marks)
        return list(pool.map(twice, [mark.value for mark in marks]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reward_may_use_worker_processes(tmp_path, method):
    text = POOL.replace("{method}", method)
    function = reward(tmp_path, text, helper="def twice(x):\n    return 2 * x\n")
    assert scores(function, "a", "abc") == [2.0, 6.0]
    assert "helper" not in sys.modules


# --- async


ASYNC = """
import asyncio, functools

waiting = 0
most = 0
lock = None

async def one(text):
    global waiting, most, lock
    lock = lock or asyncio.Lock()
    async with lock:  # bound to the loop of the first call, as a client's connections are
        waiting += 1
    most = max(most, waiting)
    while waiting < 3:
        await asyncio.sleep(0.001)  # all three must be under way at once
    await asyncio.sleep(0)
    return float(len(text))

async def score(prompts, completions):
    global waiting
    waiting = 0
    return await asyncio.gather(*map(one, completions))

def promised(prompts, completions):
    return score(prompts, completions)

def each(prompts, completions):
    global waiting
    waiting = 0
    return [one(text) for text in completions]

async def yielded(prompts, completions):
    for text in completions:
        yield len(text)

class Judge:
    async def __call__(self, prompts, completions):
        return await score(prompts, completions)

judge = Judge()
part = functools.partial(score)

async def fails(prompts, completions):
    await asyncio.sleep(0)
    raise KeyError("gone")

async def in_task(prompts, completions):
    async with asyncio.TaskGroup() as group:
        group.create_task(fails(prompts, completions))

async def leaves(prompts, completions):
    raise SystemExit("no key")

async def leaves_in_task(prompts, completions):
    await asyncio.create_task(leaves(prompts, completions))

async def cancels(prompts, completions):
    raise asyncio.CancelledError
"""


@pytest.mark.parametrize("name", ["score", "promised", "each", "yielded", "judge", "part"])
def test_async_rewards_are_run_together_and_in_one_loop_for_good(tmp_path, name):
    function = reward(tmp_path, ASYNC, name)
    assert [scores(function, "a", "ab", "") for _ in range(2)] == [[1, 2, 0]] * 2

    async def as_in_a_notebook():
        return scores(function, "a", "ab", "")

    assert asyncio.run(as_in_a_notebook()) == [1, 2, 0]


@pytest.mark.parametrize(
    ("name", "said", "line"),
    [
        ("fails", "KeyError: 'gone'", 'raise KeyError("gone")'),
        ("in_task", "KeyError: 'gone'", 'raise KeyError("gone")'),
        ("leaves", "SystemExit: it called sys.exit('no key')", 'raise SystemExit("no key")'),
        (
            "leaves_in_task",
            "SystemExit: it called sys.exit('no key')",
            'raise SystemExit("no key")',
        ),
        ("cancels", "CancelledError", "raise asyncio.CancelledError"),
    ],
)
def test_a_fault_in_an_async_reward_is_told_and_the_next_call_works(tmp_path, name, said, line):
    function = reward(tmp_path, ASYNC, name)
    number = ASYNC.split("\n").index(f"    {line}") + 1
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            scores(function, "a")
        assert str(caught.value).startswith(
            f"mine raised {said} ({tmp_path}/mine.py, line {number}, "
        )


# --- what a reward switches


SWITCHES = """
import os, random, signal, sys, warnings
import numpy as np
import torch

seen = []

def look():
    return (
        torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(),
        os.getcwd(), np.geterr()["over"], sys.getrecursionlimit(), sys.path[0],
        signal.getsignal(signal.SIGALRM), torch.are_deterministic_algorithms_enabled(),
    )

def switch():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("cpu:0")
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode(1)
    os.chdir(os.path.dirname(__file__))
    np.seterr(all="raise")
    warnings.filterwarnings("ignore", message="mine")
    sys.setrecursionlimit(5000)
    sys.stdout = sys.stderr
    sys.path.insert(0, "mine")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 1000)

{at_load}

def score(prompts, completions):
    {at_call}
    assert os.path.samefile(".", os.path.dirname(__file__))
    warnings.warn("mine")
    if completions == ["fail"]:
        raise ValueError
    seen.append(look())
    return [1.0 for _ in completions]
"""


def settings():
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        os.getcwd(),
        np.geterr(),
        list(warnings.filters),
        sys.getrecursionlimit(),
        sys.stdout,
        list(sys.path),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)],
        signal.getitimer(signal.ITIMER_REAL),
    )


@pytest.mark.parametrize("where", ["at_load", "at_call"])
def test_what_a_reward_switches_holds_for_the_reward_alone(tmp_path, where):
    """The job finds all as it was, and the reward finds its own settings again."""
    before = settings()
    text = SWITCHES.replace(f"{{{where}}}", "switch()")
    function = reward(tmp_path, re.sub(r"\{\w+\}", "pass", text))
    assert settings() == before
    for answer in ("x", "fail", "x"):
        if answer == "fail":
            with pytest.raises(UserError, match="raised ValueError"):
                scores(function, answer)
        else:
            scores(function, answer)
        assert settings() == before
    first, second = sys.modules[function.__module__].seen
    assert first == second
    mine = (False, torch.float64, 2, str(tmp_path), "raise", 5000, "mine", signal.SIG_IGN, True)
    assert first == mine


def test_two_rewards_do_not_see_each_others_settings(tmp_path):
    text = SWITCHES.replace("{at_load}", "switch()").replace("{at_call}", "pass")
    reward(tmp_path / "a", text)
    plain = reward(
        tmp_path / "b",
        "import os\ndef score(prompts, completions):\n    return [os.getcwd() == "
        + repr(os.getcwd())
        + "]",
    )
    assert scores(plain, "x") == [1.0]


def test_a_random_reward_draws_on_and_a_seed_in_it_is_its_own(tmp_path):
    text = "import random\nrandom.seed(3)\ndef score(prompts, completions):\n    return [random.random()]"
    function = reward(tmp_path, text)
    assert scores(function, "x") != scores(function, "x")


# --- what it raises and gives back


def test_a_persons_ctrl_c_goes_through(tmp_path):
    text = "def score(prompts, completions):\n    raise KeyboardInterrupt\n"
    with pytest.raises(KeyboardInterrupt):
        scores(reward(tmp_path, text), "x")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[[1.0], [2.0]]", r"returned \[1.0\] for completion 0"),
        ("np.ones((2, 1))", r"returned array\(\[1.\]\) for completion 0"),
        (
            "[1.0, None]",
            r"returned None for completion 1 \('{b}'\): it must return a finite number, since answers are",
        ),
        ("{1.0, 2.0}", "returned set {1.0, 2.0}, not a list of 2 numbers"),
        ("{0: 1.0, 1: 2.0}", "returned dict .*, not a list of 2 numbers"),
        ("'12'", "returned str '12', not a list of 2 numbers"),
        ("np.float64(3)", "returned float64 .*, not a list of 2 numbers"),
        ("np.array(3.0)", "returned ndarray .*, not a list of 2 numbers"),
        ("[1.0, 2.0, 3.0]", "returned 3 values for 2 completions"),
        ("[1.0, 10 ** 400]", "returned 10+ for completion 1"),
        ("eval('1 +')", r"raised SyntaxError: invalid syntax \(\S+mine.py, line 3, in score\)"),
        ("score(prompts)", r"raised TypeError: .*'completions' \(\S+mine.py, line 3, in score\)"),
    ],
)
def test_anything_but_one_number_for_each_is_refused(tmp_path, value, said):
    function = reward(
        tmp_path, f"import numpy as np\ndef score(prompts, completions):\n    return {value}\n"
    )
    with pytest.raises(UserError, match=f"^mine {said}"):
        scores(function, "a", "{b}")


def test_numbers_may_come_as_any_ordered_collection(tmp_path):
    for value in (
        "np.arange(2)",
        "(0, 1.0)",
        "range(2)",
        "map(float, '01')",
        "[False, np.float32(1)]",
    ):
        text = f"import numpy as np\ndef score(prompts, completions):\n    return {value}\n"
        assert scores(reward(tmp_path, text), "a", "b") == [0.0, 1.0]


# --- arguments and columns


@pytest.mark.parametrize(
    ("definition", "columns", "said"),
    [
        ("def score(prompts, completions, topic): 0", ["prompt", "topic"], None),
        ("def score(completions): 0", ["prompt"], None),
        ("def score(*, completions, topic='tea', **more): 0", ["prompt"], None),
        ("class score:\n    def __init__(self, prompts, completions): 0", ["prompt"], None),
        ("score = max", ["prompt"], None),
        ("def score(prompt, completions): 0", ["prompt"], "wants 'prompt', .*mean 'prompts'"),
        ("def score(completions, top): 0", ["prompt", "topic"], r"'topic'.*--columns top=topic$"),
        ("def score(completions, q): 0", ["prompt", "topic"], "wants 'q', .*: there are topic$"),
        ("async def score(completions, q): 0", ["prompt"], "wants 'q', .*none besides the prompt"),
        ("def score(prompts): 0", ["prompt"], "takes no argument 'completions'"),
        ("def score(prompts, completions, /): 0", ["prompt"], "takes 'prompts' by its place"),
        ("def score(**columns): 0", ["prompt", "completions"], "--columns other=completions$"),
        ("def score(completions): 0", ["prompt", "prompts"], "--columns other=prompts$"),
        ("def score(prompt, completion, topic): 0", ["prompt", "topic"], None),
        ("async def score(completion, **columns): 0", ["prompt"], None),
        ("def score(completion, completions): 0", ["prompt", "completion"], None),
        ("def score(completions): 0", ["prompt", "completion"], None),
        ("def score(completion): 0", ["prompt", "completions"], None),
        (
            "def score(completion): 0",
            ["prompt", "completion"],
            "given the answer by that name: .*=completion$",
        ),
        ("def score(completion, prompts): 0", ["prompt"], "wants 'prompts', .*mean 'prompt'"),
        ("def score(completion, top): 0", ["prompt", "topic"], r"'topic'.*--columns top=topic$"),
        (
            "def score(completion, completions): 0",
            ["prompt"],
            "wants 'completion', .*'completions'",
        ),
        ("def score(completion, /): 0", ["prompt"], "takes 'completion' by its place"),
        (
            "def score(prompts): 0",
            ["prompt"],
            r"one answer a call def reward\(prompt, completion, \*\*columns\)$",
        ),
    ],
)
def test_columns_and_arguments_must_fit(tmp_path, definition, columns, said):
    function = reward(tmp_path, definition)
    if said is None:
        check_columns(function, columns, "rows.jsonl", name="mine")
        return
    with pytest.raises(UserError, match=said) as caught:
        check_columns(function, columns, "rows.jsonl", name="mine")
    assert "mine" in str(caught.value)


def test_a_reward_is_given_what_it_takes(tmp_path):
    function = reward(tmp_path, "def score(completions, x):\n    return x\n")
    assert scores(function, "a", "b", x=[1, 2], y=[3, 4]) == [1, 2]


def test_a_reward_of_one_answer_is_called_for_each(tmp_path):
    text = """
async def score(prompt, completion, x):
    return one(completion, x)
def one(completion, x):
    if completion == "c":
        raise ValueError("no c")
    return len(prompt_of(x)) + len(completion)
def prompt_of(x):
    return "p" * x
"""
    for name in ("score", "one"):
        function = reward(tmp_path, text, name)
        assert scores(function, "a", "bb", x=[1, 2], y=[3, 4]) == [2, 4]
        with pytest.raises(
            UserError, match=r"^mine raised ValueError: no c \(\S+mine.py, line 6, "
        ):
            scores(function, "a", "c", x=[1, 2])
