"""The house rules that a machine can check: room order, no import circles, names, light imports, sizes."""

import ast
import doctest
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "recloop"
# A room imports only rooms above it (and itself).
ROOMS = (
    "errors", "settings", "progress", "records", "files", "artifacts", "experiment", "data", "rerankers",
    "llm", "prompts", "encoders", "rewards", "training", "evaluation", "methods", "testing", "config",
    "exits", "serving", "use_cli", "cli",
)  # fmt: skip
ALSO = {"records": {"data"}}  # Log.from_frames, where users look for it, is made in data
HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "sentence_transformers",
    "scipy",
    "implicit",
    "datasets",
    "torch_geometric",
    "sklearn",
    "httpx2",
    "stable_baselines3",
    "gymnasium",
    "fastapi",
    "uvicorn",
    "ray",
)
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    """The rooms a module imports, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("recloop."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "recloop":
            yield from (alias.name for alias in node.names if alias.name in ROOMS)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("recloop."))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_keeps_to_its_room_and_its_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    room = room_of(path)
    if room != "__init__":
        assert room in ROOMS, f"{room} is no room of the house; add it to ROOMS or move the module"
        above = {*ROOMS[: ROOMS.index(room) + 1], *ALSO.get(room, ())}
        below = {other for other in imported_rooms(tree) if other not in above}
        assert not below, f"{room} may import {', '.join(above)}; got {sorted(below)}"
    assert text.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert num_lines <= MAX_FUNCTION_LINES, f"{node.name} has {num_lines} lines"


def module_name(path: Path) -> str:
    parts = ("recloop", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """What a module holds outside of its functions: of imports, those that are done with its own, or for types."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from outside_functions(node)


@pytest.mark.slow
def test_no_modules_import_each_other_in_a_circle_not_even_for_types() -> None:
    trees = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in modules()}
    imports: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found: set[str] = set()
        for node in outside_functions(tree):
            if isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in trees else str(node.module) for one in inside}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        imports[name] = found & trees.keys()
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {' <- '.join(error.args[1])}; move what both need into the upper one")


@pytest.mark.slow
def test_a_class_name_is_used_once() -> None:
    nodes = (node for path in modules() for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    uses = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, number in uses.items() if number > 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module begins with a sentence on what it holds"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "recloop",
        "recloop.records",
        "recloop.errors",
        "recloop.experiment.run_folder",
        "recloop.cli",
        "recloop.methods.dpo4rec",
        "recloop.methods.rerec",
        "recloop.methods.re2llm",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    heavy = (*HEAVY, "polars", "pydantic", "rich") if module == "recloop.cli" else HEAVY
    script = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in modules() if ">>> " in p.read_text(encoding="utf-8")], ids=lambda path: path.stem
)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    name = ".".join(("recloop", *path.relative_to(SOURCE).with_suffix("").parts))
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert attempted > 0


def test_every_room_is_there_and_contributing_lists_them_in_their_order() -> None:
    assert set(ROOMS) == {room_of(path) for path in modules()} - {"__init__", "__main__"}
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert ", ".join(ROOMS) + "." in text.replace("\n", " ")


def test_no_folder_is_called_after_nothing() -> None:
    names = {path.stem for path in SOURCE.rglob("*")}
    assert not names & {"utils", "util", "common", "helpers", "base", "misc"}


@pytest.mark.slow
def test_trust_in_remote_code_and_pickles_is_never_given() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                is_refused = isinstance(node.value, ast.Constant) and node.value.value is False
                assert is_refused, f"{path} trusts remote code"
            if isinstance(node, ast.Import):
                assert not {a.name for a in node.names} & {"pickle", "dill", "joblib"}, f"{path} pickles"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path} evaluates text as code"
