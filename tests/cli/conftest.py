"""What tests of the command share."""

from __future__ import annotations

import pytest

from plaudit.cli.main import main


@pytest.fixture
def plaudit(capsys):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return call
