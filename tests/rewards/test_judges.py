"""Judges: what functions may be, who abstains, what fails, and what several of them make."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from judged_answers import answers, file_of
from plaudit.feedback.raters import gold_score
from plaudit.ops import outcome_reward
from plaudit.records.errors import UserError
from plaudit.rewards.functions import checked_scores, load_reward_function
from plaudit.rewards.judges import FunctionJudge, RewardJudge, ScoredReward, load_judge

NONE = math.nan

FORMS = """
import asyncio

def whole(prompts, completions, want):
    assert prompts == [f"p{i}" for i in range(len(prompts))]
    return [None if w is None else len(c) - w for c, w in zip(completions, want)]

async def whole_async(completions, **columns):
    await asyncio.sleep(0)
    return whole(columns["prompts"], completions, columns["want"])

def one(prompt, completion, want):
    assert prompt.startswith("p")
    return None if want is None else len(completion) - want

async def one_async(completion, prompt, **columns):
    await asyncio.sleep(0)
    return one(prompt, completion, columns["want"])

def promised(prompt, completion, want):
    return one_async(completion, prompt, want=want)

class Judge:
    def __call__(self, completion, want=None):
        return one("p", completion, want)

judge = Judge()
"""


def loaded(folder, text, name):
    return load_reward_function(f"{file_of(folder, text)}:{name}")


def same(found: torch.Tensor, wanted: list[float]) -> bool:
    return torch.equal(
        found.nan_to_num(-1e9), torch.tensor(wanted, dtype=torch.float64).nan_to_num(-1e9)
    )


@pytest.mark.parametrize("name", ["whole", "whole_async", "one", "one_async", "promised", "judge"])
def test_every_form_gives_the_scores_in_order_and_abstains_by_none(tmp_path, name):
    function = loaded(tmp_path, FORMS, name)
    batch = answers("a", "abc", "", "ab", want=[1, 0, None, 5])
    judge = FunctionJudge([function])
    judge.check_columns(["prompt", "want"], "rows.jsonl")
    for _ in range(2):
        (scores,) = judge(batch).values()
        assert scores.dtype == torch.float64
        assert same(scores, [0, 3, NONE, -3])
    assert judge.taken_failures() == {name: 0}
    columns = {"want": [1, 0, 2, 5]}
    prompts = ["p0", "p1", "p2", "p3"]
    strict = checked_scores(function, prompts, list(batch.texts), columns, name="mine")
    assert strict == [0, 3, -2, -3]
    sentence = r"mine returned None for completion 2 \(''\): it must return a finite number, since"
    with pytest.raises(UserError, match=sentence):
        checked_scores(function, prompts, list(batch.texts), batch.columns(), name="mine")


@pytest.mark.parametrize("form", ["prompts, completions", "completion"])
@pytest.mark.parametrize("value", ["math.nan", "-math.inf", "'x'", "[1.0]", "10 ** 400"])
def test_what_is_neither_a_number_nor_none_stays_an_error(tmp_path, form, value):
    body = f"[1.0, {value}]" if "s" in form else f"{value} if completion == 'b' else 1.0"
    judge = FunctionJudge(
        [loaded(tmp_path, f"import math\ndef f({form}):\n    return {body}\n", "f")]
    )
    said = (
        r"the reward f returned .* for completion 1 \('b'\): it must return a finite number or None"
    )
    with pytest.raises(UserError, match=said):
        judge(answers("a", "b"))


FAULTS = """
def odd(completion):
    if len(completion) % 2 == 0:
        raise ValueError(f"even: {completion}")
    return len(completion)

async def odd_async(completion):
    return odd(completion)

def leaves(completion):
    raise SystemExit("no key")

async def leaves_async(completion):
    leaves(completion)

def whole(completions):
    return [odd(text) for text in completions]

def misfit(completion, wanted):
    return 1.0
"""


@pytest.mark.parametrize("name", ["odd", "odd_async"])
def test_a_failure_abstains_is_counted_and_is_told_with_its_place(tmp_path, name):
    judge = FunctionJudge([loaded(tmp_path, FAULTS, name)])
    assert same(judge(answers("a", "ab", "abc", "abcd"))[name], [1, NONE, 3, NONE])
    assert judge.failures == {name: 2}
    assert same(judge(answers("abcdef", "b"))[name], [NONE, 1])
    assert judge.taken_failures() == {name: 3}
    assert judge.failures == judge.taken_failures() == {name: 0}
    place = f"ValueError: even: ab ({tmp_path}/mine.py, line 4, in odd)"
    assert judge.first_failure == {name: place}
    with pytest.raises(UserError) as caught:
        judge(answers("xy", "ab"))
    said = f"the reward {name} failed on all 2 answers of a batch; on the first: "
    assert str(caught.value) == said + place.replace("ab (", "xy (")


@pytest.mark.parametrize("name", ["leaves", "leaves_async"])
def test_leaving_the_program_is_a_failure_like_others(tmp_path, name):
    judge = FunctionJudge([loaded(tmp_path, FAULTS, name)])
    with pytest.raises(
        UserError, match=r"failed on all 1 answers .*sys.exit\('no key'\) \(.*line 11"
    ):
        judge(answers("a"))


def test_a_function_of_a_whole_batch_that_raises_is_an_error(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, FAULTS, "whole")])
    with pytest.raises(
        UserError, match=r"^the reward whole raised ValueError: even: ab \(.*line 4"
    ):
        judge(answers("a", "ab"))


def test_a_call_that_does_not_fit_is_told_with_its_function(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, FAULTS, "misfit")])
    with pytest.raises(UserError, match=r"missing 1 required .*'wanted' \(.*mine.py, line 19\)$"):
        judge(answers("a"))


def test_a_persons_ctrl_c_goes_through(tmp_path):
    text = "def f(completion):\n    raise KeyboardInterrupt\n"
    with pytest.raises(KeyboardInterrupt):
        FunctionJudge([loaded(tmp_path, text, "f")])(answers("a"))


def test_an_empty_batch_has_no_scores(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, FAULTS, "odd"), loaded(tmp_path, FAULTS, "whole")])
    assert {name: len(x) for name, x in judge(answers()).items()} == {"odd": 0, "whole": 0}


# --- async


ASYNC = """
import asyncio, time

waiting = 0
loop = None
cancelled = []

async def together(completion):
    global waiting, loop
    loop = loop or asyncio.get_running_loop()
    assert loop is asyncio.get_running_loop()
    waiting += 1
    while waiting % 3:
        await asyncio.sleep(0.001)
    return waiting

async def slow(completion):
    try:
        await asyncio.sleep(1000 if completion == "slow" else 0)
    except asyncio.CancelledError:
        cancelled.append(completion)
        raise
    return len(completion)

async def own(completion):
    if completion == "b":
        raise TimeoutError("the other side")
    return 1

async def blocks(completion):
    time.sleep(0.3)
    return len(completion)

async def task_leaves(completion):
    async def leaves():
        raise SystemExit("no key")
    await asyncio.create_task(leaves())
"""


def test_async_functions_are_under_way_at_once_and_keep_their_loop(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, ASYNC, "together")])
    for num in (3, 6):
        assert same(judge(answers("a", "b", "c"))["together"], [num] * 3)


def test_an_async_answer_that_is_late_is_cancelled_alone(tmp_path):
    function = loaded(tmp_path, ASYNC, "slow")
    judge = FunctionJudge([function], timeout=2.0)
    assert same(judge(answers("a", "slow", "abc"))["slow"], [1, NONE, 3])
    assert judge.first_failure == {"slow": "TimeoutError: no answer within 2 s"}
    assert judge.taken_failures() == {"slow": 1}
    assert function.function.__globals__["cancelled"] == ["slow"]


def test_a_time_out_of_the_functions_own_is_told_as_that(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, ASYNC, "own")], timeout=60.0)
    assert same(judge(answers("a", "b"))["own"], [1, NONE])
    assert judge.first_failure["own"].startswith("TimeoutError: the other side (")


def test_who_waits_for_another_that_blocks_is_not_late(tmp_path):
    """Each answer's time begins with its own first step: four of 0.3 s are not late after 1 s."""
    judge = FunctionJudge([loaded(tmp_path, ASYNC, "blocks")], timeout=1.0)
    assert same(judge(answers(*"abcde"))["blocks"], [1] * 5)


def test_a_task_that_leaves_the_program_fails_the_batch_and_not_the_next(tmp_path):
    judge = FunctionJudge([loaded(tmp_path, ASYNC, "task_leaves")])
    for _ in range(2):
        with pytest.raises(UserError, match=r"failed on all 2 answers .*sys.exit\('no key'\)"):
            judge(answers("a", "b"))


# --- what cannot be kept


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        ("odd", {"timeout": 1}, "a timeout cannot be kept for the reward odd in this process: give"),
        ("whole", {"timeout": 1}, "no reward is called for one answer: write def reward(prompt, "),
        ("odd", {"timeout": 0, "workers": 1}, "timeout is 0: give a positive number of seconds"),
        ("odd", {"timeout": math.inf, "workers": 1}, "timeout is inf"),
        ("odd", {"workers": -1}, "workers is -1"),
        ("odd whole", {"weights": [1]}, "there are 1 weights for 2 rewards (odd, whole)"),
        ("odd whole", {"weights": [0, 0]}, "give finite ones, not all 0"),
        ("odd", {"weights": [math.nan]}, "give finite ones"),
        ("odd whole", {"names": ["x", "x"]}, "two rewards are called 'x'"),
    ],
)  # fmt: skip
def test_what_could_not_be_kept_is_refused_at_once(tmp_path, names, options, sentence):
    functions = [loaded(tmp_path, FAULTS, name) for name in names.split()]
    with pytest.raises(UserError, match=re.escape(sentence)):
        FunctionJudge(functions, **options)


def test_a_time_may_be_kept_by_some_and_concern_others_not(tmp_path):
    functions = [loaded(tmp_path, FAULTS, name) for name in ("odd_async", "whole")]
    judge = FunctionJudge(functions, timeout=60.0)
    assert {n: x.tolist() for n, x in judge(answers("a")).items()} == {
        "odd_async": [1],
        "whole": [1],
    }


def test_names_are_the_functions_own_and_differ(tmp_path):
    functions = [loaded(tmp_path / str(i), FORMS, "one") for i in range(3)]
    assert FunctionJudge(functions).names == ("one", "one_2", "one_3")

    def one_2(completion):
        return 0.0

    assert FunctionJudge([one_2, *functions]).names == ("one_2", "one", "one_3", "one_4")
    assert FunctionJudge([lambda completion: 0.0]).names == (f"{__name__}:<lambda>",)
    assert FunctionJudge([loaded(tmp_path, FORMS, "judge")]).names == ("judge",)


# --- judges and reward roles


def by_length(batch):
    return outcome_reward(batch.chosen.sum(1).float(), batch.chosen)


def test_a_reward_role_is_a_judge_and_the_other_way_round():
    batch = answers("a", "abc", "ab")
    judge = RewardJudge(by_length, "length")
    assert judge(batch)["length"].tolist() == [1, 3, 2]
    reward = ScoredReward(judge)(batch)
    assert torch.equal(reward, by_length(batch))
    assert reward.dtype == batch.logp.dtype


def test_a_reward_that_is_not_finite_does_not_pass_for_an_abstention():
    def broken(batch):
        return by_length(batch) / 0.0

    with pytest.raises(UserError, match="the reward length scored answer 0 of a batch inf"):
        RewardJudge(broken, "length")(answers("a"))


def test_a_row_that_nobody_judged_has_no_reward(tmp_path):
    functions = [loaded(tmp_path, FORMS, "one"), loaded(tmp_path, FAULTS, "odd")]
    batch = answers("a", "ab", "abc", want=[0, None, None])
    reward = ScoredReward(FunctionJudge(functions, weights=[10.0, 1.0]))(batch)
    assert same(reward.double().flatten(), [11, 0, 0, 0, NONE, 0, 0, 0, 3])


# --- by name


def test_what_a_user_names_is_found_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = file_of(tmp_path, FORMS)
    judge = load_judge(["mine.py:one", "sentiment", f"{file}:one"], [1, 2, 3])
    assert judge.names == ("one", "sentiment", "one_2")
    assert judge.weights == (1.0, 2.0, 3.0)
    texts = ("What a lovely day.", "Awful.")
    scores = judge(answers(*texts, want=[0, None]))
    assert list(scores) == ["one", "sentiment", "one_2"]
    assert scores["sentiment"].tolist() == [gold_score(text) for text in texts]
    assert same(scores["one_2"], [18, NONE])
    assert judge.taken_failures() == {"one": 0, "sentiment": 0, "one_2": 0}
    judge.check(["prompt", "want"], "rows.jsonl")
    with pytest.raises(UserError, match=r"the reward one wants 'want', which no column of rows"):
        judge.check(["prompt"], "rows.jsonl")


@pytest.mark.parametrize(
    ("names", "weights", "sentence"),
    [
        ([], None, "no reward is named"),
        (["sentimnt"], None, "reward 'sentimnt' is neither a function (module:function, file.py:function) nor the folder of a reward model nor sentiment (did you mean 'sentiment'?)"),
        (["gone.py:f"], None, "reward file gone.py does not exist"),
        (["mine.py:on"], None, "has no function 'on' (did you mean 'one'?)"),
        (["empty"], None, "empty holds no reward model"),
        (["sentiment"], [1.0, 2.0], "there are 2 weights for 1 rewards (sentiment)"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_a_sentence(tmp_path, monkeypatch, names, weights, sentence):
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path, FORMS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_judge(names, weights)


def test_the_guides_rewards_do_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    section = page.partition("## Rewards in reinforcement learning")[2].partition("\n## ")[0]
    rewards, use = re.findall("```python\n(.*?)```", section, re.DOTALL)
    file_of(tmp_path, rewards, "my_rewards")
    names: dict = {}
    exec(use, names)
    batch = answers("It is 12.", "It is 13, please.", "x", solution=["12", "12", None])
    scores = names["judge"](batch)
    assert {name: x.tolist() for name, x in scores.items() if name != "right"} == {
        "brief": [-0.09, -0.17, -0.01],
        "polite": [0, 1, 0],
    }
    assert same(scores["right"], [1, 0, NONE])
    total = names["reward"](batch).sum(1)
    torch.testing.assert_close(total, torch.tensor([0.982, 0.466, -0.002]))
    names["judge"].close()
