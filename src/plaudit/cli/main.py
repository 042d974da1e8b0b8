"""The command's entry: finds the verb, runs it, and turns what goes wrong into sentences.

Exit codes: 0 done, 1 a fault of ours (with its traceback), 2 input that cannot be used,
130 stopped on request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from plaudit.cli.streams import begin_again_in_utf8, is_text, write_what_can_be
from plaudit.records.errors import UserError, nearest
from plaudit.records.interrupt import Interrupted
from plaudit.records.visible import visible

VERBS = {
    "run": "run a recipe: plaudit run rlhf --model PATH --prompts my.jsonl",
    "sweep": "run a recipe over several seeds: plaudit sweep control/ppo --seeds 0..9",
    "eval": "let a trained agent play, with --video to see it: plaudit eval RUN",
    "ls": "list the recipes that come with Plaudit, and your runs",
    "cp": "copy a recipe to own it: plaudit cp rlhf my.yaml",
    "show": "tell how a run or a sweep went or goes: plaudit show demo",
    "studio": "open the pages where people give feedback: plaudit studio --import pairs.jsonl",
    "feedback": "import, export and count what people and judges said",
    "data": "check a file before it is learned from: plaudit data check pairs.jsonl",
    "explain": "what a logged number means: plaudit explain objective/kl",
    "env": "versions, cores, memory and devices, for bug reports",
}
"""Every verb with its sentence; the verb's code is `plaudit.cli.<verb>:main`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `plaudit` with the given words (the process's own by default); returns the exit code."""
    if argv is None:
        begin_again_in_utf8()
    for stream in (sys.stdout, sys.stderr):
        write_what_can_be(stream)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except UserError as error:
        print(visible(f"plaudit: {error}"), file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(visible(f"plaudit: {stopped}"), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("plaudit: quit", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] in ("-V", "--version"):
        import plaudit

        print(plaudit.__version__)
        return 0
    for word in words:
        if not word.isascii() and not is_text(word):
            raise UserError(
                f"{word!r} is not UTF-8 text: rename that file or folder, as models and the "
                "feedback store take only names that are"
            )
    verb, *rest = words
    if verb not in VERBS:
        raise UserError(f"no verb {verb!r}{nearest(verb, VERBS)}; 'plaudit --help' lists them")
    run: Callable[[list[str]], int] = import_module(f"plaudit.cli.{verb}").main
    return run(rest)


def help_text() -> str:
    """What `plaudit --help` says."""
    from plaudit.cli.words import page

    about = "Teach agents by reward: from reinforcement learning to RLHF."
    closing = (
        "'plaudit VERB --help' says more; 'plaudit run RECIPE --help' lists every key of a recipe."
    )
    return page(["plaudit VERB ..."], about, [("", list(VERBS.items()))], closing)


if __name__ == "__main__":
    sys.exit(main())
