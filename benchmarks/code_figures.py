"""The code in figures: size, functions, docstrings and tests of every folder, read from its syntax.

    python benchmarks/code_figures.py [--write]

A net line is one that is neither blank nor comment nor docstring. A function's length is its net
lines, those of functions inside it included. Public is what has no leading underscore, in a module
or a public class of it. Tests belong to the folder of the same name under tests/. Besides, the walk
of a batch through one step of PPO on text: the folders that it is handed to, in order.
`--write` keeps the table in results/code.md.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src" / "plaudit", ROOT / "tests"
RESULTS = ROOT / "benchmarks" / "results" / "code.md"
LONGEST = 60
"""Net lines of a function outside an algorithm's loop, at most."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Figures:
    """What is counted of some files."""

    files: list[int] = field(default_factory=list)
    code: int = 0
    functions: int = 0
    long: list[str] = field(default_factory=list)
    public: int = 0
    typed: int = 0
    documented: int = 0
    bare: list[str] = field(default_factory=list)
    tests: int = 0


def net_lines(text: str, tree: ast.AST) -> set[int]:
    """Numbers of the lines that hold code."""
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def public_names(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions, classes and methods without a leading underscore; magic methods but __call__ left
    out, and those of protocols and overrides that only pass."""
    for node in tree.body:
        if not isinstance(node, (*Function.__args__, ast.ClassDef)) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                named = isinstance(inner, Function) and not inner.name.startswith("_")
                if named or (isinstance(inner, Function) and inner.name == "__call__"):
                    yield f"{node.name}.{inner.name}", inner


def is_typed(node: Function) -> bool:
    """Whether every argument but self and the result are annotated."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    own = [a for a in given if a.arg not in ("self", "cls")]
    return node.returns is not None and all(a.annotation is not None for a in own)


def read(folder: Path, figures: Figures) -> None:
    """Counts the files of a folder, those of folders inside it included."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        lines = net_lines(text, tree)
        figures.files.append(len(text.splitlines()))
        figures.code += len(lines)
        for node in ast.walk(tree):
            if isinstance(node, Function):
                figures.functions += 1
                size = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
                if size > LONGEST:
                    figures.long.append(f"{path.relative_to(SOURCE)}:{node.name} ({size})")
        for name, node in public_names(tree):
            figures.public += 1
            figures.typed += not isinstance(node, Function) or is_typed(node)
            said = ast.get_docstring(node) is not None  # type: ignore[arg-type]
            figures.documented += said
            if not said:
                figures.bare.append(f"{path.relative_to(SOURCE)}:{name}")


def code_of(folder: Path) -> int:
    """Net lines of a folder's files."""
    total = 0
    for path in folder.rglob("*.py") if folder.is_dir() else ():
        text = path.read_text()
        total += len(net_lines(text, ast.parse(text)))
    return total


def walk_of_a_batch() -> list[str]:
    """Folders that a batch enters in one step of PPO on text, by the calls that it is an argument
    of in `lm/ppo.py`: from the algorithm, and back to it after each."""
    tree = ast.parse((SOURCE / "lm" / "ppo.py").read_text())
    roles = {"actor": "engine", "critic": "engine", "reference": "engine", "reward": "rewards"}
    steps = {"token_steps": "lm", "samples": "lm", "minibatches": "lm", "_update": "lm"}
    rooms: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        names = {a.id for a in node.args if isinstance(a, ast.Name)}
        if not names & {"batch", "part"}:
            continue
        called = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        if isinstance(called, ast.Name):
            rooms.append(roles.get(called.id) or steps.get(called.id) or "lm")
    return list(dict.fromkeys(rooms))


def table() -> list[str]:
    """The figures of every folder, and of all, in lines of Markdown; then what is over a limit."""
    folders = [p for p in sorted(SOURCE.iterdir()) if p.is_dir() and any(p.rglob("*.py"))]
    found = {folder.name: Figures() for folder in folders}
    for folder in folders:
        read(folder, found[folder.name])
        found[folder.name].tests = code_of(TESTS / folder.name)
    shared = sum(
        len(net_lines(p.read_text(), ast.parse(p.read_text()))) for p in TESTS.glob("*.py")
    ) + sum(code_of(p) for p in TESTS.iterdir() if p.is_dir() and p.name not in found)
    rows = [
        "| folder | files | code | file median / max | functions | over 60 | typed | documented "
        "| tests / code |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    whole = Figures(tests=shared)
    for name, one in found.items():
        rows.append(_row(name, one))
        whole.files += one.files
        whole.long += one.long
        whole.bare += one.bare
        for key in ("code", "functions", "public", "typed", "documented", "tests"):
            setattr(whole, key, getattr(whole, key) + getattr(one, key))
    rows.append(_row("**all**", whole))
    rows += ["", f"Functions over {LONGEST} net lines: {', '.join(whole.long) or 'none'}."]
    strict = [n for n in whole.bare if n.startswith(("lm/", "engine/", "records/roles"))]
    rows.append(f"Public names of lm, engine and records/roles without a docstring: "
                f"{', '.join(strict) or 'none'}.")  # fmt: skip
    rows.append(f"Rooms that a batch enters in a step of PPO: {', '.join(walk_of_a_batch())}.")
    return rows


def _row(name: str, one: Figures) -> str:
    middle = f"{statistics.median(one.files):.0f} / {max(one.files)}"
    typed, said = (f"{x / max(one.public, 1):.0%}" for x in (one.typed, one.documented))
    share = f"{one.tests / max(one.code, 1):.2f}"
    cells = [name, len(one.files), f"{one.code:,}", middle, f"{one.functions:,}", len(one.long)]
    return f"| {' | '.join(map(str, cells))} | {typed} | {said} | {share} |"


def main() -> None:
    """Prints the table, and keeps it where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the table in results/code.md")
    lines = table()
    print("\n".join(lines))
    if parser.parse_args().write:
        RESULTS.write_text("# The code in figures\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
