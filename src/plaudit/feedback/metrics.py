"""What collecting feedback logs."""

from __future__ import annotations

from collections.abc import Mapping

from plaudit.records.metric import Metric

FEEDBACK: Mapping[str, Metric] = {
    "feedback/votes": Metric(
        "Votes collected so far; of people's, those that prefer one answer.",
        "count",
        "Rises to items times votes for each item.",
        "up",
    ),
    "feedback/wanted": Metric(
        "Votes of people at which a run goes on that waits for them.",
        "min(feedback.votes_wanted, pairs)",
        "Constant; the run goes on once feedback/votes has reached it.",
    ),
    "feedback/ties": Metric(
        "Share of the votes that call two answers equally good.",
        "ties / votes",
        "Below 0.3; many ties mean that the answers are too alike to learn from.",
    ),
}
