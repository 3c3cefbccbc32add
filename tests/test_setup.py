"""What a new user meets first: bin/setup on a machine without the right Python, and `make help`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which nothing is set up."""
    for name in ("bin", "images"):
        shutil.copytree(REPO / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy(REPO / "tests" / "requirements.txt", tmp_path / "tests")
    return tmp_path


def fake_python(folder: Path, version: str, *, usable: bool, venv: bool = True) -> Path:
    """A Python of another version, as far as the script can tell."""
    python = folder / f"python{version}"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in -V) echo "Python {version}.2" ;;\n'
        f"*version_info*) exit {0 if usable else 1} ;;\n"
        f"*ensurepip*) exit {0 if venv else 1} ;; esac\n"
    )
    python.chmod(0o755)
    return python


def setup(checkout: Path, python: Path | str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "HOME": str(checkout)}
    return subprocess.run(
        [checkout / "bin" / "setup"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.15"])
def test_a_python_that_does_not_fit_is_one_clear_line(checkout: Path, version: str) -> None:
    python = fake_python(checkout, version, usable=False)
    ran = setup(checkout, python)
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert "Python 3.11 to 3.14 is needed" in line and f"Python {version}.2" in line and "PYTHON=" in line
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_one_clear_line(checkout: Path) -> None:
    ran = setup(checkout, "/nowhere/python3")
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert "none of /nowhere/python3" in line


def test_a_python_without_venv_is_one_clear_line(checkout: Path) -> None:
    ran = setup(checkout, fake_python(checkout, "3.12", usable=True, venv=False))
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert "virtual environments" in line and "python3-venv" in line


def test_the_script_itself_tells_an_old_python_from_a_new_one() -> None:
    """The fakes above answer as they are told; this is the question that real ones are asked."""
    (question,) = re.findall(r"sys\.exit\(not (.*?)\)' 2>", (REPO / "bin" / "setup").read_text())
    for version, fits in {(3, 10): False, (3, 11): True, (3, 14): True, (3, 15): False}.items():
        asked = question.replace("sys.version_info[:2]", "version")
        assert eval(asked, {"version": version}) is fits


def test_make_help_lists_every_target_in_a_line() -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split()[1] for line in listed] == targets
    assert {"setup", "run", "test", "recommendations", "up", "down", "bench", "lint", "lock", "clean"} < set(targets)
    assert all(len(line.split(maxsplit=2)) == 3 for line in listed), "a target without its line"
    assert (
        subprocess.run(
            ["make", "--no-print-directory"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        == listed
    )
