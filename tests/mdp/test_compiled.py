"""Kept machine code is never older than the sources that it was made from."""

from __future__ import annotations

import os

from plaudit.mdp.compiled import forget_stale_code


def test_kept_code_is_forgotten_when_any_source_changes(tmp_path):
    kept = tmp_path / "deep" / "__pycache__" / "kernel.nbi"
    kept.parent.mkdir(parents=True)
    source, other = tmp_path / "deep" / "kernel.py", tmp_path / "callee.py"
    for path in (source, other, kept):
        path.write_text("x")
    stamp = tmp_path / "__pycache__" / "stamp"
    assert forget_stale_code(tmp_path, stamp)
    kept.write_text("made after the stamp")
    assert not forget_stale_code(tmp_path, stamp)
    assert kept.exists()
    os.utime(other, ns=(0, other.stat().st_mtime_ns + 1))
    assert forget_stale_code(tmp_path, stamp)
    assert not kept.exists()
    assert source.exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "file").write_text("in the way")
    assert forget_stale_code(tmp_path, tmp_path / "file" / "stamp")
