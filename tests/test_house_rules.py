"""The house rules that no linter knows. Each test names every place that breaks its rule."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
MAX_FUNCTION_LINES = 60
ENGINE_SIDE = {"_engine", "docker", "image", "swarm", "kubernetes"}  # of sidecar/targets: what may be told the time
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
TEXT = {"", ".cfg", ".html", ".ini", ".js", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}

# Whichever test comes first parses every file.
pytestmark = pytest.mark.timeout(20)

# Put together here, so that this file does not hold what it forbids.
UNFINISHED = re.compile(rf"\b({'TO'}DO|{'FIX'}ME|{'X'}XX)\b|{'pragma'}: no cover")
FOREIGN_PARTS = (
    # package registries: where a file comes from is the machine's business, its hash is ours
    ("pypi", ".org"),
    ("python", "hosted"),
    ("registry.", "npmjs"),
    ("proxy.", "golang"),
    # folders of somebody's own machine
    ("/ro", "ot/"),
    ("/Us", "ers/"),
    ("/wo", "rk/"),
)
FOREIGN = re.compile(rf"(?<!\w)({'|'.join(re.escape(''.join(parts)) for parts in FOREIGN_PARTS)})")


@cache
def committed() -> tuple[PurePosixPath, ...]:
    """Every file that is in the repository or about to be."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return tuple(PurePosixPath(name) for name in sorted(set(names) - {""}) if (ROOT / name).is_file())


def python_files(*folders: str) -> Iterator[PurePosixPath]:
    return (path for path in committed() if path.suffix == ".py" and (not folders or path.parts[0] in folders))


@cache
def parsed(path: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give the line and the top package of every absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}"
        for path in committed()
        if path.suffix in TEXT
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_function_is_longer_than_one_screen():
    """A function has at most 60 lines, its docstring included."""
    too_long = [
        f"{path}:{node.lineno} {node.name}: {length} lines"
        for path in python_files()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not too_long


def test_only_settings_reads_the_environment():
    """No module but settings.py touches os.environ or os.getenv."""
    names = {"environ", "environb", "getenv", "getenvb"}
    reads = [
        f"{path}:{node.lineno}"
        for path in python_files("sidecar")
        if path != PurePosixPath("sidecar/settings.py")
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os")
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names})
    ]
    assert not reads


@pytest.mark.parametrize(
    "package, owner",
    [("docker", "sidecar/targets/_engine.py"), ("sqlite3", "sidecar/journal.py")],
)
def test_a_package_has_one_owner(package: str, owner: str):
    """The Docker SDK and SQLite are each imported by one module, inside functions too."""
    others = [
        f"{path}:{line}"
        for path in python_files("sidecar")
        if path != PurePosixPath(owner)
        for line, name in imported(parsed(path))
        if name == package
    ]
    assert not others


def test_what_decides_reads_no_clock():
    """In core, sources and all of targets but its drivers the time is an argument, never asked for."""
    pure = [
        path
        for path in python_files("sidecar")
        if path.parts[1] in {"core", "sources"} or (path.parts[1] == "targets" and path.stem not in ENGINE_SIDE)
    ]
    reads = [
        f"{path}:{node.lineno}"
        for path in pure
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today"}
    ]
    assert not reads


def test_files_are_named_after_what_they_hold():
    """No file or folder has a name that fits anything."""
    vague = [str(path) for path in python_files() if VAGUE_NAMES & set(re.split(r"[/_.]", str(path)))]
    assert not vague


def test_every_module_says_what_it_is_for():
    """Every module of the package opens with a docstring."""
    silent = [str(path) for path in python_files("sidecar") if not ast.get_docstring(parsed(path))]
    assert not silent


def test_nothing_is_left_for_later_in_the_code():
    """Code is finished and covered: no note to do it later, no line exempted from coverage."""
    assert not lines_that_match(UNFINISHED)


def test_nothing_of_the_machine_is_committed():
    """No package registry and no path of a developer's machine stands in a committed file."""
    assert not lines_that_match(FOREIGN)


@pytest.mark.parametrize("name", ["run", "dev", "build", "bench"])
def test_requirements_name_no_place(name: str):
    """The requirement files hold versions and hashes; where the files come from is the installer's business."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    strange = [
        line
        for line in lines
        if not re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+ .*\\$|    --hash=sha256:[0-9a-f]{64}|\s*#", line)
    ]
    assert not strange
