"""Progress for people: a bar on a terminal, plain lines every few seconds elsewhere.

Both show step, rate, remaining time, three headline numbers and a short sample.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from plaudit.cli.words import NARROW
from plaudit.records.events import Evaluation, Event, Rollout, Step
from plaudit.records.visible import visible, visible_line

if TYPE_CHECKING:
    from plaudit.pipelines.drive import Progress

EVERY = 5.0
"""Seconds between plain lines: seldom enough for a log, often enough to see that it lives."""


def progress_for(stream: TextIO) -> Progress:
    """A bar where `stream` is a terminal, else plain lines."""
    return BarProgress(Console(file=stream)) if stream.isatty() else PlainProgress(stream)


class Stage:
    """What is known of the stage under way."""

    def __init__(self, name: str, headline: Sequence[str]) -> None:
        self.name = name
        self.headline = list(headline)
        self.step, self.total = 0, 0
        self.sample = ""
        self.metrics: dict[str, float] = {}
        self._begun = time.monotonic()
        self._since: tuple[int, float] | None = None
        """The step and the time that the pace is measured from."""

    def take(self, event: Event) -> None:
        """Learns from an event."""
        if isinstance(event, Step | Rollout | Evaluation):
            self.metrics |= event.metrics
        if isinstance(event, Rollout) and event.samples:
            self.sample = sample_line(event.samples[0])
        if isinstance(event, Step):
            if self._since is None:  # only of step 1 is it known how many steps it took to come
                now = time.monotonic()
                self._since = (0, self._begun) if event.step == 1 else (event.step, now)
            self.step, self.total = event.step, event.total

    @property
    def seconds_per_step(self) -> float | None:
        """Over the steps of this sitting since the first that was told.

        None until they have been watched for as long as that one took to come: of a start-up and a
        step or two the time that remains would be many times the true one.
        """
        if self._since is None:
            return None
        step, since = self._since
        done, watched = self.step - step, time.monotonic() - since
        return watched / done if done > 0 and watched >= since - self._begun else None

    def timing(self) -> str:
        """Such as "3.2 s/step, 1:20 left"."""
        pace = self.seconds_per_step
        if pace is None:
            return ""
        rate = f"{pace:.1f} s/step" if pace >= 1 else f"{1 / pace:.1f} steps/s"
        return f"{rate}, {clock(pace * (self.total - self.step))} left"

    def numbers(self) -> str:
        """The headline metrics that are known so far, the first three where none were named."""
        names = [n for n in self.headline if n in self.metrics] or list(self.metrics)[:3]
        return "  ".join(f"{name} {self.metrics[name]:.4g}" for name in names[:3])


class SayingWhere:
    """Progress that says where the run is kept once something is kept there: what is refused
    before that leaves no folder."""

    def __init__(self, progress: Progress, line: str) -> None:
        self._progress, self._line = progress, line

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None:
        """Says it before the first stage."""
        if self._line:
            self._progress.note(self._line)
        self._line = ""
        self._progress.begin(stage, headline, start)

    def show(self, event: Event) -> None:
        """Passes it on."""
        self._progress.show(event)

    def end(self) -> None:
        """Passes it on."""
        self._progress.end()

    def note(self, text: str) -> None:
        """Passes it on."""
        self._progress.note(text)


class PlainProgress:
    """Lines for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage: Stage | None = None
        self._said_at = 0.0
        self._said_step = -1

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None:
        """Names the stage."""
        self._stage, self._said_at, self._said_step = Stage(stage, headline), time.monotonic(), -1
        self.note(f"{stage}: {f'goes on after step {start:,}' if start else 'begins'}")

    def show(self, event: Event) -> None:
        """Prints the step when the last line is some seconds old."""
        if self._stage is None:
            return
        self._stage.take(event)
        if isinstance(event, Step) and time.monotonic() - self._said_at >= EVERY:
            self._line()

    def end(self) -> None:
        """Prints the last step."""
        if self._stage is not None and self._stage.step not in (0, self._said_step):
            self._line()
        self._stage = None

    def note(self, text: str) -> None:
        """Prints a line; nothing where the terminal is gone, for the work goes on to its save."""
        try:
            print(visible(text), file=self._stream, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    def _line(self) -> None:
        stage = self._stage
        assert stage is not None
        self._said_at, self._said_step = time.monotonic(), stage.step
        parts = [f"{stage.name}: {stage.step}/{stage.total}", stage.timing(), stage.numbers()]
        self.note("  ".join(part for part in parts if part))
        if stage.sample:
            self.note(f"    {stage.sample}")


class BarProgress:
    """A bar that redraws itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage: Stage | None = None
        self._live: Live | None = None

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None:
        """Draws the stage's bar."""
        self.end()
        self._stage = Stage(stage, headline)
        self._stage.step = start
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=False
        )
        self._live.start()

    def show(self, event: Event) -> None:
        """Moves the bar."""
        if self._stage is not None:
            self._stage.take(event)

    def end(self) -> None:
        """Leaves the bar as it is."""
        if self._live is not None:
            self._live.stop()
        self._live = self._stage = None

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> Group:
        stage = self._stage
        if stage is None:
            return Group()
        row = Table.grid(padding=(0, 2))
        total, narrow = stage.total or None, self._console.width < NARROW
        cells: list[Text | ProgressBar] = [
            Text(stage.name, style="bold"),
            Text(f"{stage.step}/{stage.total or '?'}"),
        ]
        if not narrow:
            cells.insert(1, ProgressBar(total=total, completed=stage.step, width=24))
            cells.append(Text(stage.timing()))
        row.add_row(*cells)
        lines: list[Table | Text] = [row]
        if narrow:
            lines.append(Text("  " + stage.timing(), no_wrap=True, overflow="ellipsis"))
        lines.append(Text("  " + stage.numbers(), no_wrap=True, overflow="ellipsis"))
        if stage.sample:
            lines.append(Text("  " + stage.sample, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


def sample_line(sample: Mapping[str, Any], width: int = 150) -> str:
    """A sample in one line: its score and the beginnings of its texts."""
    parts = []
    for name, value in sample.items():
        if isinstance(value, str):
            text = visible_line(" ".join(value.split()))
            cut = width // 2
            parts.append(text if len(text) <= cut else text[: cut - 1] + "…")
        elif isinstance(value, float):
            parts.append(f"{name} {value:.3g}")
    return " | ".join(parts)


def clock(seconds: float) -> str:
    """Such as 0:05, 12:30 or 2:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
