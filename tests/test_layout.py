"""One direction of imports: dags → plugins → contracts ← __main__ → verbs → adapters, nouns."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts import TASKS

REPO = Path(__file__).parents[1]
VERBS = {f"tasks.{name}" for name in TASKS}


def modules(*folders: str) -> list[tuple[str, Path]]:
    """(dotted name, file) of every module below the folders."""
    found: list[tuple[str, Path]] = []
    for folder in folders:
        for path in sorted((REPO / folder).rglob("*.py")):
            parts = path.relative_to(REPO).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(name: str, path: Path) -> set[str]:
    """Dotted names of everything that the file imports, wherever it stands in it."""
    found: set[str] = set()
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            # `from tasks import tracking` imports a module, `from tasks.contracts import TASKS` a name of one
            found |= {f"{origin}.{alias.name}" if is_package(origin) else origin for alias in node.names}
    return found


def is_package(name: str) -> bool:
    return (REPO / name.replace(".", "/") / "__init__.py").exists()


def ours(found: set[str], *roots: str) -> set[str]:
    return {name for name in found if name.split(".")[0] in (roots or ("tasks", "nightjar", "dags", "plugins"))}


def test_the_reader_of_imports_sees_each_form(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import airflow.sdk\nfrom tasks import tracking as t\nfrom tasks.contracts import TASKS\n"
        "from . import storage\ndef late():\n    from tasks.recsys import splits\n"
    )
    seen = {"airflow.sdk", "tasks.tracking", "tasks.contracts", "tasks.storage", "tasks.recsys.splits"}
    assert imports("tasks.x", file) == seen


@pytest.mark.parametrize(("name", "path"), modules("dags"))
def test_dags_know_the_plugins_alone(name: str, path: Path) -> None:
    assert ours(imports(name, path)) <= {
        f"nightjar.{name}" for name in ("announcement", "notifier", "operators", "params")
    }


@pytest.mark.parametrize(("name", "path"), modules("plugins"))
def test_plugins_know_the_contracts_alone(name: str, path: Path) -> None:
    assert ours(imports(name, path), "tasks", "dags") <= {"tasks.contracts"}


def test_no_plugin_file_has_the_name_of_a_standard_module() -> None:
    """Airflow imports each of them under its bare name: a plugins/…/operator.py becomes everybody's `operator`."""
    assert not {path.stem for _, path in modules("plugins")} & sys.stdlib_module_names


def test_the_process_runner_needs_the_standard_library_alone() -> None:
    found = imports("nightjar.process_runner", REPO / "plugins" / "nightjar" / "process_runner.py")
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names


@pytest.mark.parametrize(("name", "path"), modules("tasks"))
def test_tasks_never_know_airflow(name: str, path: Path) -> None:
    assert not {one for one in imports(name, path) if one.split(".")[0] in ("airflow", "nightjar", "dags", "plugins")}


@pytest.mark.parametrize(("name", "path"), modules("tasks"))
def test_nobody_imports_a_verb(name: str, path: Path) -> None:
    assert not imports(name, path) & VERBS


@pytest.mark.parametrize(("name", "path"), modules("tasks/recsys"))
def test_nouns_know_nouns_alone(name: str, path: Path) -> None:
    assert all(one.startswith("tasks.recsys.") for one in ours(imports(name, path)))


@pytest.mark.parametrize(("name", "path"), modules("tasks"))
def test_three_adapters_alone_know_mlflow(name: str, path: Path) -> None:
    knows = any(one.split(".")[0] == "mlflow" for one in imports(name, path))
    assert not knows or name in ("tasks.tracking", "tasks.registry", "tasks.nights")


def test_contracts_and_failures_know_nothing_of_ours() -> None:
    for name in ("contracts", "failures"):
        assert not ours(imports(f"tasks.{name}", REPO / "tasks" / f"{name}.py"))


COST = """
import json, sys, time
before = set(sys.modules)
started = time.process_time()
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, create_model
library = time.process_time() - started
import tasks.contracts
ours = time.process_time() - started - library
print(json.dumps([ours / library, sorted({name.split(".")[0] for name in set(sys.modules) - before})]))
"""


def test_importing_the_contracts_is_cheap_and_pulls_in_pydantic_alone() -> None:
    command = [sys.executable, "-c", COST]
    runs = [json.loads(subprocess.run(command, cwd=REPO, capture_output=True, check=True).stdout) for _ in range(5)]
    pydantics = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    extra = set(runs[0][1]) - sys.stdlib_module_names - pydantics - {"tasks"}
    assert not {name for name in extra if not name.startswith("_")}
    # 0.12 s in all on an idle machine, nearly all of it pydantic's own: stated as a share, a busy one agrees.
    assert min(share for share, _ in runs) < 0.5
