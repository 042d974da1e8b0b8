"""Users' files as modules: found by name in every process, with the files beside them in reach."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.records.errors import UserError
from plaudit.records.imports import beside, load_module, loaded_file


def write(folder, **files):
    """Files of a folder, which is made; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return str(folder / f"{next(iter(files))}.py")


def test_files_of_equal_name_in_different_folders_stay_apart(tmp_path):
    """Their helpers, too, of which Python holds one by that name."""
    text = "import helper\nfrom helper import who\ndef late():\n    import later\n    return later.who\n"
    first = load_module(
        write(tmp_path / "a.b", score=text, helper="who = 1", later="who = 3"), "job"
    )
    path, modules = list(sys.path), set(sys.modules)
    second = load_module(
        write(tmp_path / "c", score=text, helper="who = 2", later="who = 4"), "job"
    )
    assert (first.who, second.who, first.helper.who, second.helper.who) == (1, 2, 1, 2)
    for module, who in ((first, 3), (second, 4), (first, 3)):
        with beside(module):
            import helper  # type: ignore[import-not-found]

            assert helper is module.helper
            assert module.late() == who
    assert sys.path == path
    assert set(sys.modules) - modules == {second.__name__}
    assert loaded_file(first.__file__) is first
    with pytest.raises(ModuleNotFoundError):
        import helper


def test_a_package_beside_and_one_of_equal_name_elsewhere(tmp_path, monkeypatch):
    write(tmp_path / "else", tools="who = 'else'")
    monkeypatch.syspath_prepend(tmp_path / "else")
    import tools  # type: ignore[import-not-found]

    where = write(tmp_path, score="import tools.deep\nfrom tools import who\n")
    write(tmp_path / "tools", __init__="who = 'beside'", deep="from tools import who")
    module = load_module(where, "job")
    assert (module.who, module.tools.deep.who) == ("beside", "beside")
    assert sys.modules["tools"] is tools
    assert "tools.deep" not in sys.modules


def test_a_changed_file_and_its_helper_are_read_anew(tmp_path):
    """Also one of the same size in the same second, which a cache of compiled code would not see."""
    where = write(tmp_path, score="from helper import x\ny = 1", helper="x = 1")
    old = load_module(where, "job")
    write(tmp_path, score="from helper import x\ny = 2", helper="x = 20")
    new = load_module(where, "job")
    assert (old.x, old.y, new.x, new.y) == (1, 1, 20, 2)


def test_what_a_file_defines_can_be_pickled_into_another_process(tmp_path):
    where = write(
        tmp_path / "odd folder.d",
        score="from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from helper import base\n"
        "@dataclass\nclass Mark:\n    value: int = base\n",
        helper="base = 7",
    )
    mark = load_module(where, "job").Mark(9)
    data = pickle.dumps([mark, type(mark)])
    assert pickle.loads(data)[0] == mark
    code = "import pickle, sys; mark, kind = pickle.loads(sys.stdin.buffer.read())\n"
    code += "print(mark.value, kind().value, type(mark) is kind, kind.__name__)"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert done.stdout.decode() == "9 7 True Mark\n", done.stderr.decode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\nif x\n", r"could not be read: SyntaxError: expected ':' \(line 2\)$"),
        ("import math\n\nmth.pi\n", r"could not be read: NameError: name 'mth'.* \(line 3\)$"),
        ("def f():\n    1 / 0\nf()\n", r"ZeroDivisionError: division by zero \(line 2, in f\)$"),
        (
            "\nimport nltkk\n",
            r"imports 'nltkk', which is neither installed nor beside it \(line 2\)$",
        ),
        ("import helprr\n", r"imports 'helprr', .* \(did you mean 'helper'\?\) \(line 1\)$"),
        ("from math import tua\n", r"ImportError: cannot import name 'tua' .* \(line 1\)$"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: it called sys.exit\(3\) \(line 2\)$"),
        ("import helper\n", r"ValueError: no \(\S*helper.py, line 2\)$"),
        ("import crooked\n", r"SyntaxError: .* \(\S*crooked.py, line 1\)$"),
        ("x = '\0'\n", r"could not be read: \w+: source code .*null bytes"),
    ],
)
def test_a_file_that_cannot_be_run_is_a_sentence_with_its_line(tmp_path, text, sentence):
    helpers = {"helper": "\nraise ValueError('no')", "crooked": "if"}
    where = write(tmp_path, score=text, **helpers)
    with pytest.raises(UserError, match=sentence) as caught:
        load_module(where, "job")
    assert str(caught.value).startswith(f"job file {where} ")
    assert "\n" not in str(caught.value)
    assert loaded_file(where) is None
    assert str(tmp_path) not in sys.path


def test_a_module_in_the_working_folder_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    Path("named_here_only.py").write_text("x = 1")
    assert load_module("named_here_only", "job").x == 1
    Path("leaves_at_once.py").write_text("raise SystemExit('no')")
    with pytest.raises(UserError, match=r"job module 'leaves_at_once' .*'no'.*line 1"):
        load_module("leaves_at_once", "job")
