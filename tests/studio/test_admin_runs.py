"""From page to training in Chromium: a reward model fitted, PPO started by it, watched live, stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.store import FeedbackStore
from plaudit.records.config import Config
from plaudit.records.runs import RunFolder
from studio.browsing import visiting
from studio.serving import running
from tiny_job import BLAME, PRAISE, tiny_job

MORE = """num_held_out = 4
num_top_layers = 2
sampling.max_new_tokens = 8
prompts_per_step = 4
num_minibatches = 2
save_every = 1
num_steps = {num_steps}"""


class Keys(Config):
    """None."""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A studio beside a tiny model, with votes that prefer praise."""
    folder = tiny_job(tmp_path_factory.mktemp("job"))
    with pytest.MonkeyPatch.context() as patch, FeedbackStore(folder / "feedback.sqlite") as store:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        for k in range(12):
            for n, sides in enumerate(zip(PRAISE, BLAME, strict=True)):
                item = Item(
                    f"i{k}-{n}", f"Write about cart number {k}.", tuple(map(Segment, sides))
                )
                store.add_items([item])
                store.add_comparison(item.key, "Ada", "tie" if (k, n) == (0, 0) else "a")
        planted()
        with running(store) as studio:
            yield studio
            for job in studio.studio.jobs.started():
                job.process.kill()
                job.process.wait()


def planted():
    """A run whose reward is exploited, as metrics tell it."""
    with RunFolder.create("runs/planted", Keys(), pipeline="ppo") as run:
        for k in range(1, 31):
            gold = 0.1 * min(k, 20 - k / 2)
            row = {"stage": "ppo", "step": k, "objective/kl": 0.1 * (k - 1), "gold/mean": gold}
            run.append_jsonl("metrics.jsonl", row | {"objective/scores": 0.1 * k, "lr": 0.1 / k})
            pieces = {"pieces": ["Good", " day", ""], "token_kl": [2.0, -0.2, 0.0]}
            sample = {
                "stage": "ppo",
                "step": k,
                "prompt": "Hm?",
                "completion": "Good day",
                "score": 1.5,
            }
            run.append_jsonl("samples.jsonl", sample | pieces)


@pytest.fixture(scope="module")
def root(browser, up):
    with visiting(browser, up, "Root", role="admin") as visit:
        visit.context.set_default_timeout(120_000)
        yield visit


def the_list(root):
    page = root.open("/admin#runs")
    page.get_by_role("link", name="planted").wait_for()
    return page


def state(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def test_a_reward_model_is_fitted_and_ppo_by_it_is_watched_and_stopped(root, up):
    page = the_list(root)
    page.get_by_role("button", name="Fit a reward model").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("judge")
    dialog.get_by_label("Model").fill("model")
    dialog.get_by_label("More keys").fill("num_epochs = 2\nnum_top_layers = 2")
    shown = dialog.locator(".command")
    shown.filter(has_text="num_top_layers=2").wait_for()
    assert shown.inner_text() == (
        f"plaudit feedback export --store {up.store.name} runs/.studio/judge.votes.jsonl\n"
        "plaudit run reward --name judge --data=runs/.studio/judge.votes.jsonl --model=model"
        " --num_epochs=2 --num_top_layers=2"
    )
    dialog.get_by_role("button", name="Fit a reward model").click()
    state(page, "judge").get_by_text("finished").wait_for()
    assert len(Path("runs/.studio/judge.votes.jsonl").read_text().splitlines()) == 35  # no tie
    page.get_by_role("link", name="judge").click()
    page.get_by_role("slider", name="eval/accuracy").wait_for()
    page.locator("summary", has_text="Results").click()
    page.get_by_role("rowheader", name="reward_model_accuracy").wait_for()

    page = the_list(root)
    page.get_by_role("button", name="Start a run").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Job").select_option("ppo")
    dialog.get_by_label("Name").fill("live")
    dialog.get_by_label("Model").fill("model")
    dialog.get_by_label("Prompts").fill("prompts.jsonl")
    dialog.get_by_label("Judged by").select_option("runs/judge/reward_model")
    dialog.get_by_label("More keys").fill(MORE.format(num_steps=500))
    dialog.locator(".command").filter(has_text="num_steps=500").wait_for()
    dialog.get_by_role("button", name="Start a run").click()
    state(page, "live").get_by_text("at work").wait_for()
    page.get_by_role("link", name="live").click()
    chart = page.get_by_role("slider", name="ppo: objective/scores")
    chart.wait_for()
    # It grows by itself: nothing is loaded anew.
    page.evaluate("window.here = true")
    first = int(chart.get_attribute("aria-valuenow"))
    page.wait_for_function(
        "(n) => [...document.querySelectorAll('[role=slider]')].some((one) =>"
        " one.ariaLabel.includes('objective/scores') && Number(one.getAttribute('aria-valuenow')) > n)",
        arg=first + 2,
    )
    page.locator(".sample .pieces").first.wait_for()
    page.get_by_role("button", name="Save and stop").click()
    page.locator("main .badge").get_by_text("stopped").wait_for()
    page.get_by_role("button", name="Go on").wait_for()
    assert page.evaluate("window.here")
    run = RunFolder(Path("runs/live"))
    assert run.saved_at()[0] == "ppo"
    assert not run.finished


def test_charts_are_read_by_keys_and_as_a_table_and_alarms_are_said(root):
    page = root.open("/admin#runs/planted")
    alarms = page.get_by_role("region", name="Signs that something is wrong")
    alarms.get_by_text("The reward is exploited.").wait_for()
    chart = page.get_by_role("slider", name="ppo: objective/scores, gold/mean")
    chart.focus()
    assert chart.get_attribute("aria-valuetext") == "step 30: objective/scores 3, gold/mean 0.5"
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
    assert chart.get_attribute("aria-valuetext") == "step 2: objective/scores 0.2, gold/mean 0.2"
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 53, box["y"] + 80)
    assert chart.get_attribute("aria-valuetext").startswith("step 30:")
    over = page.get_by_role("figure").filter(
        has=page.get_by_role("heading", name="Over-optimisation")
    )
    assert "gold" in over.inner_text()
    over.get_by_text("As a table").click()
    expect(over.get_by_role("row")).to_have_count(31)  # filled when the browser says it is open
    page.get_by_text("All other curves").click()
    page.get_by_role("slider", name="ppo: lr").wait_for()


def test_samples_are_coloured_and_paged(root):
    page = root.open("/admin#runs/planted")
    last = page.locator(".sample").last
    last.wait_for()
    good, day = last.locator(".pieces span").all()
    assert (good.inner_text(), good.get_attribute("class")) == ("Good", "more3")
    assert day.get_attribute("class") == "less1"
    assert day.get_attribute("title") == "-0.2 nats from the reference"
    assert "ppo 30" in last.inner_text()
    page.get_by_role("button", name="Earlier").click()
    page.locator(".sample .badge", has_text="ppo 22").wait_for()
    page.get_by_role("button", name="Later").click()
    page.locator(".sample .badge", has_text="ppo 30").wait_for()


def test_what_is_refused_is_said_before_anything_starts(root):
    root.network_is_cut = True  # a refusal is written to the console
    page = the_list(root)
    page.get_by_role("button", name="Start a run").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("More keys").fill("reward = os:system")
    dialog.get_by_text("code to run").wait_for()
    dialog.get_by_label("More keys").fill("")
    dialog.get_by_label("Learns from").select_option("people")
    dialog.locator(".command").filter(has_text="--feedback.source=people").wait_for()
    root.network_is_cut = False


@pytest.mark.parametrize(
    ("lang", "scheme", "width"), [("zh-CN", "light", 320), ("en-GB", "dark", 1280)]
)
def test_a_run_fits_its_screen_and_axe_finds_nothing_serious(browser, up, lang, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"locale": lang, "color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visiting(browser, up, "Root", role="admin", bypass_csp=True, **options) as visit:
        page = visit.open("/admin#runs/planted")
        page.locator(".sample").last.wait_for()
        page.get_by_text({"zh-CN": "以表格查看", "en-GB": "As a table"}[lang]).first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = [v for v in axe.run(page).response["violations"]
                 if v["impact"] in ("serious", "critical")]  # fmt: skip
        assert not found, [(v["id"], v["nodes"][0]["html"]) for v in found]
        if lang == "zh-CN":
            assert page.get_by_text("奖励被钻了空子。").is_visible()
