"""House rules that can be read off the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.checkout import CODE_FOLDERS, CONTENT_FOLDERS, ROOT, files_under, python_files

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 450

CONSOLES = {Path("firmware/console.py"), Path("inv"), Path("python-app/src/mamori/cli.py")}
CODE_SUFFIXES = {".py", ".md", ".toml", ".pem", ".typed"}
IMAGE_SUFFIXES = {".img", ".raucb", ".efi", ".erofs", ".squashfs", ".ext4", ".tar", ".zst", ".gz", ".xz", ".iso", ".ko"}
CHECKERS = ("check", "assert", "expect", "verify")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called_names(tree: ast.AST) -> Iterator[str]:
    """`print`, `sys.exit`, `self.assert_gone`: every call's target as it is written."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def all_tests() -> Iterator[tuple[Path, Function]]:
    for path, tree in python_files().items():
        if path.parts[0] == "tests" and path.name.startswith("test_"):
            yield from ((path, function) for function in functions(tree) if function.name.startswith("test_"))


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{path}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path, tree in python_files().items()
        for function in functions(tree)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_a_module_is_read_in_one_sitting() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_only_console_modules_print_or_exit() -> None:
    speaking = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "SystemExit", "sys.stdout.write", "sys.stderr.write"}
    found = {
        f"{path}: {name}"
        for path, tree in python_files().items()
        if path not in CONSOLES and path.parts[0] != "tests"
        for name in called_names(tree)
        if name in speaking
    }
    assert found == set()


def test_content_folders_hold_no_python() -> None:
    content = files_under(*CONTENT_FOLDERS)
    assert content
    assert [
        path for path in content if path.suffix == ".py" or b"python" in (ROOT / path).read_bytes()[:64].partition(b"\n")[0]
    ] == []


def test_code_folders_hold_no_image_content() -> None:
    strange = [path for path in files_under("firmware", "signing") if path.suffix not in CODE_SUFFIXES]
    built = [
        path for path in files_under(*CODE_FOLDERS) if path.suffix in IMAGE_SUFFIXES and path.parts[:2] != ("tests", "vectors")
    ]
    assert (strange, built) == ([], [])


def test_every_test_asserts_something() -> None:
    helpers = {
        path: {
            function.name for function in functions(tree) if not function.name.startswith("test_") and proves_something(function)
        }
        for path, tree in python_files().items()
    }
    idle = [(path, function) for path, function in all_tests() if not proves_something(function)]
    assert [f"{path}: {function.name}" for path, function in idle if helpers[path].isdisjoint(called_names(function))] == []


def proves_something(function: Function) -> bool:
    """A test asserts, expects an error, calls a helper that checks, or (fuzz) lets one error pass and no other."""
    if any(isinstance(node, ast.Assert | ast.Try) for node in ast.walk(function)):
        return True
    return any(
        name in ("pytest.raises", "pytest.warns", "contextlib.suppress") or name.rpartition(".")[2].lstrip("_").startswith(CHECKERS)
        for name in called_names(function)
    )


def test_a_test_name_is_a_sentence() -> None:
    assert [f"{path}: {function.name}" for path, function in all_tests() if len(function.name.split("_")) < 4] == []


def test_no_test_mocks_the_operating_system() -> None:
    mocks = {
        str(path)
        for path, tree in python_files().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[-1] == "mock" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] == "mock")
        or (isinstance(node, ast.ImportFrom) and node.module == "unittest" and any(alias.name == "mock" for alias in node.names))
    }
    assert mocks == set()
