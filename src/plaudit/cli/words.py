"""How every verb reads its words and tells of them: one sentence for a fault, help of any width.

argparse reads; its boxes of usage before an error and its fixed columns of help are replaced.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from plaudit.records.errors import UserError, nearest

WIDEST, NARROW = 100, 60
"""Longer lines are hard to follow; on narrower terminals a sentence stands below its word."""

NAMES = "a name has no '/' and begins with none of . - ~"
"""What the help says of --name; `records.runs.named_path` checks it."""

Rows = Sequence[tuple[str, str]]


def width_of() -> int:
    """Columns to write in: those of the terminal or of COLUMNS, 80 elsewhere, at most `WIDEST`."""
    return max(8, min(shutil.get_terminal_size().columns, WIDEST))


def paragraph(text: str, width: int, margin: str = "") -> list[str]:
    """The text in lines of at most `width`; a word longer than that is broken."""
    inner = max(width - len(margin), 8)
    lines = textwrap.wrap(text, inner, break_long_words=True, break_on_hyphens=False)
    return [margin + line for line in lines]


def table(rows: Rows, width: int, margin: str = "  ") -> list[str]:
    """Words with their sentences: in two columns, or one below the other where it is narrow."""
    left = min(max((len(word) for word, _ in rows), default=0), width // 3)
    lines: list[str] = []
    for word, sentence in rows:
        if width < NARROW:
            lines += paragraph(word, width, margin)
            lines += paragraph(sentence, width, margin * 2)
            continue
        beside = paragraph(sentence, width - len(margin) - left - 2)
        fits = len(word) <= left
        first = [f"{margin}{word.ljust(left)}  {beside[0]}".rstrip()] if fits and beside else []
        lines += first or paragraph(word, width, margin)
        rest = beside[1:] if first else beside
        lines += [" " * (len(margin) + left + 2) + line for line in rest]
    return lines


def page(
    usage: Iterable[str], about: str, groups: Iterable[tuple[str, Rows]], closing: str = ""
) -> str:
    """A page of help as wide as the terminal: usage, what it is about, words with sentences."""
    width = width_of()
    lines: list[str] = []
    for number, form in enumerate(usage):
        said = f"{'       ' if number else 'usage: '}{form}"
        fold = textwrap.TextWrapper(
            width,
            subsequent_indent=" " * min(11, width // 3),
            break_long_words=True,
            break_on_hyphens=False,
        )
        lines += fold.wrap(said) if width < NARROW else _folded_usage(said, width)
    lines += ["", *paragraph(about, width)] if about else []
    for title, rows in groups:
        if rows:
            lines += ["", *([*paragraph(title, width)] if title else []), *table(rows, width)]
    lines += ["", *paragraph(closing, width)] if closing else []
    return "\n".join(lines)


def _folded_usage(said: str, width: int) -> list[str]:
    """Folded between options, never within one such as [--name NAME | --out FOLDER]."""
    kept = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\0"), said)
    folded = textwrap.wrap(
        kept, width, subsequent_indent=" " * 11, break_long_words=True, break_on_hyphens=False
    )
    return [line.replace("\0", " ") for line in folded]


class Parser(argparse.ArgumentParser):
    """argparse with our voice: faults are UserErrors, abbreviations are not guessed at."""

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        super().__init__(prog, **{"allow_abbrev": False, **options})

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """The words as a namespace; UserError for one that is not known."""
        asked = self._asked(args)
        for word in args:  # before a missing word is told of, which may stand behind it
            if word.startswith("--") and word != "--":
                _require_known(word, asked)
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            _require_known(extra[0], asked)
            said = f"{extra[0]!r} is one word too many"
            raise UserError(f"{said}; '{asked.prog} --help' says what it takes")
        return found

    def error(self, message: str) -> NoReturn:
        """One sentence in place of the usage and the message."""
        raise UserError(f"{_plain(message)}; '{self.prog} --help' says more")

    def format_help(self) -> str:
        """Usage, the description, and each word with its sentence."""
        words: list[tuple[str, str]] = []
        options: list[tuple[str, str]] = []
        about = (self.description or "").replace("`", "")
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                words += [(a.dest, a.help or "") for a in action._choices_actions]
            elif action.option_strings:
                sentence = "say this" if action.dest == "help" else action.help
                options.append((_form(action), sentence or ""))
            else:
                words.append((_form(action), action.help or ""))
        usage = [" ".join([self.prog, *self._usage()])]
        return page(usage, about, [("", [*words, *options])]) + "\n"

    def print_help(self, file: Any = None) -> None:
        """Prints the help without its last line feed twice."""
        print(self.format_help(), end="", file=file or sys.stdout)

    def _usage(self) -> list[str]:
        said = []
        for action in self._actions:
            if action.dest == "help":
                continue
            form = _form(action)
            optional = (action.option_strings and not action.required) or action.nargs == "?"
            said.append(f"[{form}]" if optional else form)
        return sorted(said, key=lambda form: form.startswith("[-"))

    def _asked(self, args: Sequence[str]) -> argparse.ArgumentParser:
        """The parser of the subcommand that was named, else this one."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                named = [word for word in args if word in action.choices]
                if named:
                    chosen: argparse.ArgumentParser = action.choices[named[0]]
                    return chosen
        return self


def _require_known(word: str, parser: argparse.ArgumentParser) -> None:
    flag = word.partition("=")[0]
    known = [flag for action in parser._actions for flag in action.option_strings]
    if flag.startswith("-") and flag not in known:
        verb = parser.prog.removeprefix("plaudit ")
        hint = nearest(flag, known)
        raise UserError(f"{verb} has no option {flag}{hint}; '{parser.prog} --help' lists them")


def _form(action: argparse.Action) -> str:
    """An option with its value, as [--episodes EPISODES]; a word as its name."""
    if isinstance(action, argparse._SubParsersAction):
        return str(action.metavar or "|".join(action.choices))
    name: Any = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices is not None and not action.metavar:
        name = "|".join(map(str, action.choices))
    value = {0: "", "?": f"[{name}]" if action.option_strings else name, "+": f"{name} ..."}.get(
        action.nargs if action.nargs is not None else -1, str(name)
    )
    return " ".join(filter(None, [", ".join(action.option_strings), value]))


def _plain(message: str) -> str:
    """argparse's message as the rest of a sentence of ours."""
    found = re.fullmatch(r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message)
    if found:
        choices = [choice.strip().strip("'") for choice in found[3].split(",")]
        name = found[1].replace("|", ", ")
        expected = " or ".join(choices)
        if set(name.split(", ")) == set(choices):
            return f"no {found[2]!r}{nearest(found[2], choices)}: expected {expected}"
        return f"{name} is {found[2]!r}{nearest(found[2], choices)}: expected {expected}"
    found = re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message)
    if found:
        kind = {"int": "a whole number", "float": "a number"}.get(found[2], found[2])
        return f"{found[1]} {found[3]}: expected {kind}"
    found = re.fullmatch(r"argument (\S+): expected (?:one|at least one) argument", message)
    if found:
        return f"{found[1]} needs a value"
    found = re.fullmatch(r"the following arguments are required: (.*)", message)
    if found:
        return f"missing: {found[1].replace('|', ' or ')}"
    found = re.fullmatch(r"argument (\S+): not allowed with argument (\S+)", message)
    if found:
        return f"{found[1]} and {found[2]} cannot both be given"
    return message
