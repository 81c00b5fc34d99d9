"""Standard output and standard error that are closed, full or read by nobody."""

import os
import subprocess
import sys

import pytest

START = f'{sys.executable} -c "from avistan.cli.app import main; main()" {{}}'


def shell(arguments, streams):
    """Run a command in a shell with its streams redirected; a pipe's reader has gone before anything is written."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = f"{START.format(arguments)} {streams}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "streams", "reason"),
    [
        ("models", ">/dev/full", "No space left on device"),
        ("models", "| true", "Broken pipe"),
        ("models", ">&-", "it is closed"),
        ("--help", ">/dev/full", "No space left on device"),
    ],
    ids=["full", "unread", "closed", "help"],
)
def test_an_answer_that_nobody_can_read_is_one_message(arguments, streams, reason):
    result = shell(arguments, streams)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: standard output can't be written: {reason}. What the command writes to files is there."
    ]


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_without_standard_error_the_answer_is_there(streams):
    result = shell("models lsat_2pl", streams)
    assert result.returncode == 0
    assert "lsat_2pl.stan" in result.stdout


@pytest.mark.parametrize("streams", [">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_without_both_the_exit_status_tells(streams):
    assert shell("models", streams).returncode == 2
