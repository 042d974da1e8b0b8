"""The report page: whole, self-contained, safe against any text, honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from plaudit.pipelines.pages.report import SUMMARY_KEYS, duration, write_report
from plaudit.pipelines.pages.report_contents import (
    interval,
    notices,
    number,
    picks,
    prompt_changes,
    signed,
    verdict,
)
from plaudit.pipelines.pages.report_plots import plots, series

VOID = {"meta", "link", "br", "img", "input", "hr"}
SVG_EMPTY = {"path", "use", "rect", "circle", "line"}
NASTY = "<script>alert(1)</script><img src=x onerror=y> & \"q\" 'a' $\\frac{1}{2}$ \U0001f600 {{ 7 * 6 }}"


class Page(HTMLParser):
    """Reads a page strictly: tags must nest; keeps tags, ids, links, addresses and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.text += data


def metrics():
    rows = [
        {
            "stage": "ppo",
            "step": i,
            "objective/scores": 0.1 * i,
            "objective/kl": 0.5 * i - 0.6,
            "policy/entropy_avg": 2 - 0.1 * i,
            "answer/length": 20.0,
            "gold/mean": 0.2 + 0.05 * i,
        }
        for i in range(1, 7)
    ]
    rows += [{"stage": "reward_model", "step": i, "accuracy": 0.5 + i / 50} for i in range(1, 6)]
    rows.append({"stage": "reward_model", "step": 5, "eval/accuracy": 0.62})
    return rows


def answers(num_prompts=7, per_prompt=3):
    return [
        {
            "prompt": f"Prompt {p}" if p else NASTY,
            "before": f"Plain {p} {k}.",
            "after": NASTY if (p, k) == (0, 0) else f"Warm {p} {k}.",
            "gold_before": 0.1 * k,
            "gold_after": 0.1 * p - 0.05 * k,
            "reward_before": 0.5,
            "reward_after": 0.7,
        }
        for p in range(num_prompts)
        for k in range(per_prompt)
    ]


SUMMARY = {
    "seconds": 262.3,
    "reward_model_accuracy": 0.71,
    "reward_model_accuracy_interval": [0.66, 0.75],
    "length_only_accuracy": 0.53,
    "calibration": [
        {"low": 0.2, "high": 0.3, "num": 9, "prob": 0.25, "outcome": 0.3},
        {"low": 0.7, "high": 0.8, "num": 4, "prob": 0.75, "outcome": 0.5},
    ],
    "calibration_error": 0.11,
    "win_rate": 0.74,
    "win_rate_interval": [0.68, 0.79],
    "gold_before": 0.31,
    "gold_after": 0.58,
    "gold_after_interval": [0.5, 0.65],
    "perplexity_after": float("inf"),
    "kl": 8.4,
    "length_before": 24.0,
    "length_after": 21.0,
    "distinct_before": 0.8,
    "distinct_after": 0.79,
    "feedback": {
        "num_items": 1500,
        "by_rater": {"a": {}, "b": {}},
        "agreement": {"percent": 0.8, "cohen": None, "krippendorff": 0.61},
        "first_shown": {"num": 10, "share": 0.5, "low": 0.2, "high": 0.8},
    },
}


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "my run"
    path.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in metrics())
    (path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (path / "config.yaml").write_text("pipeline: rlhf\nmodel: '<b>x</b>'\nseed: 3\n")
    return path


def test_report_is_one_page_with_its_files(run):
    page = write_report(run, SUMMARY, answers())
    assert page == run / "report" / "index.html"
    names = {path.name for path in page.parent.iterdir()}
    expected = (
        "overoptimisation reward gold kl entropy length reward_model calibration distribution"
    )
    assert names == {"index.html", "summary.json"} | {f"{n}.png" for n in expected.split()}
    for path in page.parent.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    told = json.loads((page.parent / "summary.json").read_text())
    assert set(SUMMARY_KEYS) <= set(told)
    assert told["win_rate_interval"] == [0.68, 0.79]
    assert told["perplexity_after"] is None, "JSON cannot say infinity"


def test_page_needs_nothing_from_elsewhere_and_nests(run):
    html = write_report(run, SUMMARY, answers()).read_text(encoding="utf-8")
    page = Page(html)
    assert all(a.startswith("#") or a == "data:," for a in page.addresses), page.addresses
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", html)
    assert len(page.ids) == len(set(page.ids)), "an id occurs once on a page"
    assert page.tags.count("svg") == 9
    assert "script" not in page.tags
    assert "#0072b2" not in html.split("</style>")[1], "figures follow light and dark"
    for anchor in (a[1:] for a in page.addresses if a.startswith("#")):
        assert anchor in page.ids


def test_any_text_is_shown_and_never_run(run):
    page = Page(write_report(run, SUMMARY, answers()).read_text(encoding="utf-8"))
    assert {"script", "img", "b"} & set(page.tags) == {"b"}  # <b> is the page's own dot
    assert NASTY in page.text
    assert "<b>x</b>" in page.text
    assert "'" in page.text.split("plaudit run ")[1][:40], "a folder with a space is quoted"


TURNS = "\u202eשלום\u2066 a\u2069\u2069\u202c\x1b[2J"
"""Turns round what follows, and ends more than it began."""


class Isolated(Page):
    """Also keeps which texts are in a place of their own, where nothing outside is turned round."""

    def __init__(self, html: str) -> None:
        self.apart: list[bool] = []
        self.texts: list[tuple[str, bool]] = []
        super().__init__(html)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag not in VOID:
            self.apart.append(tag in ("bdi", "pre", "title") or ("dir", "auto") in attrs)

    def handle_endtag(self, tag):
        super().handle_endtag(tag)
        self.apart.pop()

    def handle_startendtag(self, tag, attrs):
        super().handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.apart.pop()

    def handle_data(self, data):
        super().handle_data(data)
        self.texts.append((data, any(self.apart)))


def test_no_text_turns_round_what_stands_beside_it(run):
    turned = run.with_name("t \u2067שלום")
    run.rename(turned)
    config = "pipeline: rlhf\nmodel: 'm \u2066שלום'\nreward: 'r \u2066שלום:f'\n"
    (turned / "config.yaml").write_text(config, encoding="utf-8")
    rows = [
        {**row, "prompt": row["prompt"] + TURNS, "before": TURNS, "after": "b" + TURNS}
        for row in answers()
    ]
    html = write_report(turned, SUMMARY, rows).read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", html)
    page = Isolated(html)
    held = [apart for text, apart in page.texts if "שלום" in text]
    assert len(held) > 30
    assert all(held), [text for text, apart in page.texts if "שלום" in text and not apart]
    assert "U+202E" in page.text
    assert "pre { unicode-bidi: isolate;" in html


def test_page_says_the_figures(run):
    page = Page(write_report(run, SUMMARY, answers()).read_text(encoding="utf-8"))
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "On 7 held-out prompts" in text
    assert "in 74 % of all pairs (95 % interval 68 % to 79 %)." in text
    assert "4 min 22 s in all" in text
    assert "orders 71 % of the decided pairs" in text
    assert "Krippendorff's α" in text
    assert "Cohen" not in text, "an undefined coefficient is left out"


def test_missing_stages_leave_parts_out_and_null_behind(tmp_path):
    """No config, no reward model, no gold, no metrics: texts alone still make a page."""
    rows = [{"prompt": "p", "before": "a", "after": ""} for _ in range(3)]
    page = write_report(tmp_path, {"length_before": 3.0, "length_after": 2.0}, rows)
    told = json.loads((page.parent / "summary.json").read_text())
    assert {key for key, value in told.items() if value is not None} == {
        "length_before",
        "length_after",
    }
    read = Page(page.read_text(encoding="utf-8"))
    assert "were not scored" in read.text
    assert "(empty)" in read.text
    assert "How it learned" not in read.text
    assert "Win rate" not in read.text
    assert list(page.parent.glob("*.png")) == []


def test_without_gold_the_learned_score_judges_and_the_page_says_so(run):
    rows = [row | {"gold_before": None, "gold_after": None} for row in answers()]
    summary = {"reward_win_rate": 0.52, "reward_win_rate_interval": [0.4, 0.6], "kl": 1.0}
    text = Page(write_report(run, summary, rows).read_text(encoding="utf-8")).text
    assert "which it was trained to please" in text
    assert "no change is established" in text
    assert "Shades: reward-model score" in text


def test_a_second_report_replaces_the_first(run):
    write_report(run, SUMMARY, answers())
    first = {p.name: p.read_bytes() for p in (run / "report").iterdir()}
    write_report(run, SUMMARY, answers())
    assert {p.name: p.read_bytes() for p in (run / "report").iterdir()} == first
    write_report(run, {**SUMMARY, "win_rate": 0.61}, answers())
    assert b"61\xc2\xa0%" in (run / "report" / "index.html").read_bytes()


def test_verdict_is_no_stronger_than_its_interval():
    sure = verdict({"win_rate": 0.7, "win_rate_interval": [0.6, 0.8]}, 5)
    unsure = verdict({"win_rate": 0.55, "win_rate_interval": [0.45, 0.65]}, 5)
    assert "no change is established" in unsure
    assert "no change is established" not in sure


@pytest.mark.parametrize(
    ("summary", "word"),
    [
        ({"gold_change_interval": [-0.2, -0.1], "reward_change_interval": [0.5, 2]}, "exploit"),
        ({"length_before": 20, "length_after": 30}, "longer"),
        ({"length_before": 20, "length_after": 10}, "50\N{NO-BREAK SPACE}% shorter"),
        ({"distinct_before": 0.9, "distinct_after": 0.5}, "less varied"),
        ({"repetition_before": 0.0, "repetition_after": 0.5}, "repeat"),
        ({"perplexity_before": 8, "perplexity_after": 40}, "5.0 times"),
        (
            {"reward_model_accuracy": 0.6, "reward_model_accuracy_interval": [0.49, 0.7]},
            "coin",
        ),
        ({"reward_model_accuracy": 0.6, "length_only_accuracy": 0.72}, "length alone"),
    ],
)
def test_each_notice_appears_for_its_own_reason(summary, word):
    (line,) = notices(summary)
    assert word in line


BOTH_SIDES = {
    "gold_before": 0.5, "gold_before_interval": [0.45, 0.55],
    "gold_after": 0.3, "gold_after_interval": [0.25, 0.44],
    "reward_before": 0.0, "reward_before_interval": [-0.2, 0.2],
    "reward_after": 2.0, "reward_after_interval": [1.5, 2.5],
}  # fmt: skip
"""A fall of gold beside a rise of reward that the intervals of the sides, which lie apart, show."""


def test_a_fall_that_the_intervals_do_not_establish_is_not_said():
    (line,) = notices(BOTH_SIDES)
    assert "exploits the reward model" in line
    noise = {
        "gold_before": 0.223, "gold_before_interval": [0.11, 0.33],
        "gold_after": 0.211, "gold_after_interval": [0.08, 0.38],
    }  # fmt: skip
    assert notices({**BOTH_SIDES, **noise}) == []
    assert notices({**BOTH_SIDES, "reward_after_interval": [0.1, 3.9]}) == []
    assert notices({**BOTH_SIDES, "gold_change_interval": [-0.3, 0.01]}) == []
    touching = {**noise, "gold_change_interval": [-0.02, -0.001]}  # paired, it is established
    assert len(notices({**BOTH_SIDES, **touching})) == 1
    without = {k: v for k, v in BOTH_SIDES.items() if "interval" not in k}
    assert notices(without) == []


@pytest.mark.parametrize(
    ("key", "before", "after", "apart", "touching"),
    [
        ("length", 20.0, 30.0, ([15, 24], [25, 35]), ([10, 31], [20, 41])),
        ("repetition", 0.0, 0.5, ([0, 0.2], [0.3, 0.7]), ([0, 0.4], [0.3, 0.7])),
        ("perplexity", 8.0, 40.0, ([6, 10], [30, 60]), ([6, 31], [30, 60])),
    ],
)
def test_a_change_that_the_intervals_leave_open_is_not_said(key, before, after, apart, touching):
    for (old, new), num in ((apart, 1), (touching, 0)):
        summary = {
            f"{key}_before": before, f"{key}_before_interval": old,
            f"{key}_after": after, f"{key}_after_interval": new,
        }  # fmt: skip
        assert len(notices(summary)) == num


def test_a_remedy_names_only_keys_that_the_run_has():
    assert "ppo.kl_coef" in notices(BOTH_SIDES)[0]
    assert "ppo.kl_coef" in notices(BOTH_SIDES, {"improve": "ppo", "ppo": {"kl_coef": 0.1}})[0]
    other = {"improve": "duel", "duel": {"beta": 0.1}, "ppo": {"kl_coef": 0.1}}
    assert "kl_coef" not in notices(BOTH_SIDES, other)[0]
    other["duel"] = {"kl_coef": 1.0}
    assert "A larger duel.kl_coef" in notices(BOTH_SIDES, other)[0]


def test_the_stage_that_improved_is_charted_under_its_own_name(run):
    """By the run's key, whether or not it logs its distance; nothing on the page speaks of PPO."""
    (run / "config.yaml").write_text("pipeline: rlhf\nimprove: duel\nduel:\n  num_steps: 6\n")
    rows = [{**row, "stage": "duel"} if row["stage"] == "ppo" else row for row in metrics()]
    bare = [{k: v for k, v in row.items() if k != "objective/kl"} for row in rows]
    for curves, names in ((rows, {"reward", "gold", "kl"}), (bare, {"reward", "gold"})):
        page = write_report(run, SUMMARY, answers(), curves)
        text = Page(page.read_text(encoding="utf-8")).text
        assert {path.stem for path in page.parent.glob("*.png")} >= names
        assert "DUEL step" in text
        assert "PPO" not in text
        for file in page.parent.glob("*.png"):
            file.unlink()


def test_no_change_stands_under_the_middle_of_the_scale(run):
    """Its column is between two equal ones, whatever stands in them."""
    page = write_report(run, SUMMARY, answers()).read_text(encoding="utf-8")
    assert re.search(r"\.ends \{ display: grid; grid-template-columns: 1fr auto 1fr;", page)
    assert "<span>0</span><span>no change</span><span>100 %</span>" in page


def test_one_held_out_prompt_that_was_seen_is_told_in_the_singular():
    (line,) = notices({"held_out_seen": 1})
    assert line.startswith("1 of the held-out prompts was trained on too")
    (line,) = notices({"held_out_seen": 2})
    assert line.startswith("2 of the held-out prompts were trained on too")


def test_the_verdict_says_what_a_tie_counts():
    sure = verdict({"win_rate": 0.7, "win_rate_interval": [0.6, 0.8]}, 5)
    assert sure.endswith("% to 80\N{NO-BREAK SPACE}%). A tie counts as half.")


def test_a_healthy_run_has_no_notice():
    assert notices(SUMMARY) == []
    assert notices({}) == []


def test_picks_by_hand():
    """Gain of prompt p, answer k is 0.1p − 0.15k: best is (6, 0), worst is (0, 2)."""
    chosen = picks(answers())
    assert [pair.prompt for pair in chosen["best"]] == [f"Prompt {p}" for p in (6, 5, 4, 3, 2)]
    assert chosen["best"][0].before.text == "Plain 6 0."
    assert chosen["worst"][0].after.text == "Warm 0 2."
    assert len({pair.prompt for pair in chosen["random"]}) == len(chosen["random"]) == 7
    assert chosen == picks(answers()), "the random draw is the same every time"


def test_shade_is_the_distance_in_standard_deviations():
    """Before: 0 and 2 (mean 1, s.d. 1). After 1.2, 1.5, 2.5, −1: z = 0.2, 0.5, 1.5, −2."""
    golds = [(0.0, 1.2), (2.0, 1.5), (0.0, 2.5), (2.0, -1.0)]
    rows = [
        {"prompt": str(i), "before": "", "after": "", "gold_before": b, "gold_after": a}
        for i, (b, a) in enumerate(golds)
    ]
    shades = {pair.prompt: pair.after.shade for pair in picks(rows)["random"]}
    assert shades == {"0": 0, "1": 1, "2": 2, "3": -2}
    flat = picks([row | {"gold_before": 1.0} for row in rows])
    assert {pair.after.shade for pair in flat["random"]} == {0}


def test_prompt_changes_by_hand():
    """Prompt 6: before (0 + 0.1 + 0.2)/3 = 0.1; after 0.6 − 0.05 = 0.55. Prompt 0: 0.1 and −0.05."""
    changes = prompt_changes(answers())
    assert changes[0].prompt == "Prompt 6"
    assert (changes[0].before, changes[0].after) == pytest.approx((0.1, 0.55))
    assert (changes[-1].before, changes[-1].after) == pytest.approx((0.1, -0.05))
    assert (changes[0].x_after, changes[-1].x_after) == pytest.approx((100, 0))
    assert changes[0].x_before == pytest.approx(25)  # (0.1 + 0.05) / (0.55 + 0.05)


def test_prompts_of_equal_text_are_different_prompts():
    rows = [
        {
            "prompt": "p",
            "prompt_number": n,
            "before": "",
            "after": "",
            "gold_before": 0,
            "gold_after": n,
        }
        for n in (0, 1, 1)
    ]
    assert [(change.before, change.after) for change in prompt_changes(rows)] == [(0, 1), (0, 0)]
    assert len(picks(rows)["random"]) == len(picks(rows)["best"]) == 2


def test_texts_of_numbers():
    assert number(0.7149, "share") == "71\N{NO-BREAK SPACE}%"
    assert number(-0.001) == signed(-0.001) == "0.00"
    assert (signed(0.415), signed(-0.1), signed(None)) == ("+0.41", "−0.10", "")
    assert number(float("nan")) == interval(None) == ""
    assert interval([0.5, 0.75]) == "0.50 to 0.75"
    spans = [(3.21, "3.2 s"), (59.6, "1 min 00 s"), (262, "4 min 22 s"), (7384, "2 h 03 min")]
    assert [duration(s) for s, _ in spans] == [text for _, text in spans]


def test_series_reads_one_metric_of_one_stage():
    rows = [
        {"stage": "ppo", "step": 1, "x": 1.0},
        {"stage": "sft", "step": 2, "x": 9.0},
        {"stage": "ppo", "step": 2, "x": None},
        {"stage": "ppo", "step": 3, "event": "rollout"},
        {"stage": "ppo", "step": 4, "x": 2},
    ]
    assert series(rows, "ppo", "x") == ([1.0, 4.0], [1.0, 2.0])


def test_figures_draw_the_numbers_they_were_given():
    """The SVG keeps its text: labels, units and the caption's first and last values."""
    drawn = {plot.name: plot for plot in plots(metrics(), SUMMARY, answers())}
    assert "nats per answer" in drawn["kl"].svg
    assert "−0.1 at the first step, 2.4 at the last" in drawn["kl"].caption
    assert "gold score" in drawn["overoptimisation"].svg
    assert "Orange squares" in drawn["overoptimisation"].caption
    no_gold = [{k: v for k, v in row.items() if k != "gold/mean"} for row in metrics()]
    bare = {plot.name: plot for plot in plots(no_gold, {}, [])}
    assert set(bare) == {"reward", "kl", "entropy", "length", "overoptimisation", "reward_model"}
    assert "gold" not in bare["overoptimisation"].svg + bare["overoptimisation"].caption
