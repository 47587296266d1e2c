"""docs/scoring.md is a transcript: its commands are run here, in order, and must print what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import streamloss

ROOT = Path(streamloss.__file__).parent.parent
TOUR = ROOT / "docs" / "scoring.md"


def commands():
    """The commands, each with the lines that it prints; "..." stands for anything within a line."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", TOUR.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line.startswith("> "):
                found[-1][0].append(line[2:])
            else:
                found[-1][1].append(line)
    return [("\n".join(command), shown) for command, shown in found]


def pattern(line):
    return ".*".join(map(re.escape, line.split("...")))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as the README's installation leaves it: the sample data, and the command on the path."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "tests").symlink_to(ROOT / "tests")
    programs = folder / ".programs"
    programs.mkdir()
    for name, start in (("streamloss", "-c 'import streamloss_command as c; c.main()'"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return folder, {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def test_the_tour_prints_what_it_says(place):
    folder, environment = place
    wrong = []
    for command, expected in commands():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        shown = [line.rstrip() for line in done.stdout.splitlines()]
        matches = len(shown) == len(expected) and all(map(re.fullmatch, map(pattern, expected), shown))
        if not matches:
            wrong.append("\n".join([f"$ {command}", *shown]))
    assert not wrong, "\n".join(wrong)


def test_the_tour_has_what_it_is_for():
    text = "\n".join(command for command, _ in commands())
    for word in ("--by", "--plot", "--checkpoint", "kill", "merge", "show", "--losses-out", "--save-state", "cmp"):
        assert word in text
