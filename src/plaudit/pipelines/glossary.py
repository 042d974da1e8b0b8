"""The glossary: what every number that is logged means, its formula, and what is healthy.

Each piece stands beside what logs it; here they are one. Names are those of the field (TRL's PPO logs
under the same ones), so that curves compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.agents.metrics import CONTROL
from plaudit.feedback.metrics import FEEDBACK
from plaudit.lm.metrics import TEXT
from plaudit.pipelines.finite.metrics import FINITE
from plaudit.pipelines.rlhf.metrics import BEFORE_AND_AFTER
from plaudit.records.errors import UserError, nearest
from plaudit.records.metric import Metric
from plaudit.rewards.metrics import REWARD_MODEL

GLOSSARY: Mapping[str, Metric] = {
    **TEXT,
    **REWARD_MODEL,
    **BEFORE_AND_AFTER,
    **FEEDBACK,
    **FINITE,
    **CONTROL,
}

ALIASES: Mapping[str, str] = {
    "kl": "objective/kl",
    "score": "objective/scores",
    "scores": "objective/scores",
    "reward": "objective/rlhf_reward",
    "clipfrac": "policy/clipfrac_avg",
    "approxkl": "policy/approxkl_avg",
    "entropy": "policy/entropy_avg",
    "ratio": "val/ratio",
    "length": "answer/length",
    "finished": "answer/finished",
    "distinct": "distinct_2",
    "gold_before": "gold",
    "gold_after": "gold",
}
"""Short names that people type, and names of the report, for entries of the glossary."""


def meaning(name: str) -> tuple[str, Metric] | None:
    """The entry of a name, of an alias, or of either with an ending of the results; else None."""
    for candidate in (name, ALIASES.get(name, "")):
        if candidate in GLOSSARY:
            return candidate, GLOSSARY[candidate]
    for ending in ("_before", "_after", "_interval"):
        if name.endswith(ending):
            return meaning(name.removesuffix(ending))
    return None


def find_metric(name: str) -> tuple[str, Metric]:
    """The entry of a name, of an alias, or of the part after its slash.

    Raises UserError with the nearest name where there is none.
    """
    known = meaning(name)
    if known is not None:
        return known
    for side in ("_before", "_after", "_interval"):
        if name.endswith(side):
            return find_metric(name.removesuffix(side))
    short = [full for full in GLOSSARY if full.rpartition("/")[2].removesuffix("_avg") == name]
    if len(short) == 1:
        return short[0], GLOSSARY[short[0]]
    hint = nearest(name, [*GLOSSARY, *ALIASES])
    raise UserError(f"no metric {name!r} in the glossary{hint}; 'plaudit explain' lists all")
