"""`edgepack-runtime`: where options may stand, what `run` reads, and streams that are closed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import handmade
import pytest

from edgepack_runtime.cli import main


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A bundle of the null engine."""
    return str(handmade.bundle(tmp_path / "small.epk"))


def _shell(command: str, path: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `RUN` is `edgepack-runtime run BUNDLE`."""
    whole = command.replace("RUN", f"{sys.executable} -m edgepack_runtime run {path}")
    return subprocess.run(["bash", "-c", whole], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-o", "top_k=2", "BUNDLE", "turn on", "the lights"],
        ["run", "BUNDLE", "-o", "top_k=2", "turn on", "the lights"],
        ["run", "BUNDLE", "turn on", "--threads", "1", "the lights", "-o", "top_k=2"],
        ["run", "BUNDLE", "--variant", "null", "turn on", "-v", "the lights", "-o", "top_k=2"],
        ["-v", "run", "BUNDLE", "turn on", "-o", "top_k=2", "--", "the lights"],
    ],
)
def test_options_may_stand_anywhere(
    arguments: list[str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the bundle, behind it, between texts and at the end: the answers are the same."""
    assert main([path if word == "BUNDLE" else word for word in arguments]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(answer) for answer in answers] == [2, 2]


def test_a_text_may_look_like_an_option(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands behind `--` is text."""
    assert main(["run", path, "-o", "top_k=1", "--", "-5 degrees", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("threads", ["0", "9999"])
def test_threads_are_capped(threads: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No thread and thousands of them are a wrong input, with the range."""
    assert main(["run", path, "--threads", threads, "turn on"]) == 2
    assert "threads must be a whole number from 1 to" in capsys.readouterr().err


def test_a_wrong_option_is_said_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that the task has not is one error, however many texts there are."""
    assert main(["run", path, "-o", "topk=2", *["turn on"] * 9]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("did you mean 'top_k'") == 1
    assert not shown.out


def _feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_bad_line_does_not_end_the_others(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is no UTF-8 is reported by its number and keeps its place; exit code 2."""
    _feed(monkeypatch, b"turn on\r\n\xff\xfe\nthe lights\n")
    assert main(["run", path]) == 2
    shown = capsys.readouterr()
    first, bad, last = (json.loads(line) for line in shown.out.splitlines())
    assert first[0]["label"] in handmade.LABELS
    assert bad == {"error": "standard input, line 2: not UTF-8 at byte 0"}
    assert last[0]["label"] in handmade.LABELS
    assert "standard input, line 2: not UTF-8 at byte 0" in shown.err
    assert "1 of 3 inputs were not answered" in shown.err


def test_lines_of_json_ask_pairs(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json-input a line may be a pair; without it, braces are text like any other."""
    pair = '{"text": "turn on", "text_pair": "the lights"}'
    _feed(monkeypatch, f'{pair}\n"turn on"\nturn on\n{{"words": 3}}\n'.encode() + b"[" * 100_000)
    assert main(["run", path, "--json-input"]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers[0]["label"] in handmade.LABELS
    assert answers[1][0]["label"] in handmade.LABELS
    reasons = ["line 3: not JSON", "line 4: a text pair is", "line 5: not JSON"]
    for answer, reason in zip(answers[2:], reasons, strict=True):
        assert reason in answer["error"]
    assert main(["run", path, pair]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)


def test_a_reader_that_left_is_no_noise(path: str) -> None:
    """`| head` ends the command, with not a word on standard error."""
    done = _shell("yes turn on | head -20000 | RUN | head -1; exit ${PIPESTATUS[2]}", path)
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("RUN 'turn on' >&-", "error: standard output is closed: there is nowhere to write\n"),
        ("RUN 'turn on' >&- 2>&-", ""),
        ("RUN 'turn on' >/dev/full", "error: No space left on device; fix this"),
    ],
)
def test_nowhere_to_write_is_one_line(command: str, said: str, path: str) -> None:
    """A closed standard output and a full disk are an error without a traceback, exit code 1."""
    done = _shell(command, path)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr


def test_closed_standard_error_takes_no_answer_away(path: str) -> None:
    """Without standard error the answers come all the same."""
    done = _shell("RUN 'turn on' 2>&-", path)
    assert done.returncode == 0
    assert json.loads(done.stdout)


def test_doctor_says_that_another_architecture_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No variant of a bundle for another machine, or another glibc, is said to fit."""
    for name, change, why in (
        ("arch", {"arch": "riscv64"}, "needs riscv64"),
        ("glibc", {"requires": {"glibc": "99.1"}}, "needs glibc 99.1"),
    ):
        path = handmade.bundle(tmp_path / f"{name}.epk", change=change)
        assert main(["doctor", str(path), "--json"]) == 4
        assert why in json.loads(capsys.readouterr().out)["variants"]["null"]
