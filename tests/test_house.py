"""Rules for the whole project: imports, packaging, the command, errors and links in documents."""

from __future__ import annotations

import ast
import contextlib
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from digitforge_client.common.command import ENTRY_POINT_GROUP, digitforge
from digitforge_client.errors import DigitforgeError

ROOT = Path(__file__).parents[1]
PACKAGES = {
    f"digitforge_{component}": ROOT / component / f"digitforge_{component}"
    for component in ("client", "training", "serving", "evaluation")
}
COMMANDS = sorted(entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP))
#: Libraries that the client works with when its caller uses them, and IPython for notebooks.
CALLERS_OWN = {
    *("tensorflow", "keras", "torch", "scikit-learn", "imbalanced-learn", "pandas", "opentelemetry-api", "ipython"),
}
#: The client's extras, which `pip install digitforge` does not install.
CLIENTS_EXTRAS = ("parquet", "tfrecord", "generate", "hub", "mlflow", "dask")
HEAVY: tuple[str, ...] = ("tensorflow", "keras", "sklearn", "scipy", "matplotlib", "jinja2")
HEAVY += ("joblib", "filelock", "distributed", "pyarrow", "google_crc32c", "huggingface_hub", "mlflow")


def run(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


# --- imports


def test_only_the_command_line_prints_and_imports_click() -> None:
    for package in PACKAGES.values():
        for path in package.rglob("*.py"):
            if {"cli", "cli.py", "command.py"} & set(path.relative_to(package).parts):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {"click", "rich"} & {name.partition(".")[0] for name in names}, path
                called = node.func if isinstance(node, ast.Call) else None
                assert not (isinstance(called, ast.Name) and called.id == "print"), path


# --- help


def test_help_needs_only_the_clients_dependencies() -> None:
    script = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
from digitforge_client.common.command import main
for words in {[[], *([command] for command in COMMANDS)]!r}:
    sys.argv[:] = ["digitforge", *words, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
"""
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    usages = re.findall(r"^Usage: digitforge(?: ([a-z]+))?", done.stdout, re.MULTILINE)
    assert usages == ["", *COMMANDS]


def test_help_describes_every_command() -> None:
    lines = CliRunner().invoke(digitforge, ["--help"]).stdout.splitlines()
    for command in COMMANDS:
        assert any(re.match(rf"  {command} +\S+ \S+", line) for line in lines), command


# --- errors


@contextlib.contextmanager
def suppress_missing(library: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:
            raise


def every_error() -> Iterator[type[DigitforgeError]]:
    for name, package in PACKAGES.items():
        for module in pkgutil.walk_packages([str(package)], f"{name}."):
            with suppress_missing("torch"):  # the only library with an adapter that the tests do not install
                importlib.import_module(module.name)
    waiting = [DigitforgeError]
    while waiting:
        error = waiting.pop()
        yield error
        waiting += error.__subclasses__()


def test_every_error_has_a_documented_exit_status() -> None:
    described = CliRunner().invoke(digitforge, ["--help"]).stdout
    documented = set(map(int, re.findall(r"\b(\d+)\s+\w", described[described.index("Exit status") :])))
    for error in every_error():
        assert error.exit_status in documented - {0, 130}, error
        assert error.__doc__, error


def test_the_documented_tree_of_errors_is_correct() -> None:
    drawing = sys.modules["digitforge_client.errors"].__doc__ or ""
    for error in every_error():
        if error.__module__ != "digitforge_client.errors":
            continue
        (line,) = (line for line in drawing.splitlines() if re.search(rf"\b{error.__name__}\b", line))
        stated = re.search(r"exit status (\d)", line)
        inherited = error.exit_status == error.__mro__[1].__dict__.get("exit_status", error.exit_status)
        assert int(stated[1]) == error.exit_status if stated else inherited, error


# --- packaging


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout like a release."""
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("digitforge-*.whl")
    return zipfile.ZipFile(path)


def wheel_metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def test_every_package_has_type_information() -> None:
    for package in PACKAGES.values():
        assert (package / "py.typed").is_file()


def test_the_wheel_holds_every_package_file(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for name, package in PACKAGES.items():
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{name}/{path.relative_to(package)}" in packed


def test_the_wheel_holds_the_shipped_generator_and_the_server_configuration(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for folder in ("models", "config"):
        files = [path for path in (ROOT / "serving" / folder).rglob("*") if path.is_file()]
        assert files, folder
        for path in files:
            assert f"digitforge_serving/shipped/{folder}/{path.relative_to(ROOT / 'serving' / folder)}" in packed
    versions = {name.split("/")[4] for name in packed if name.endswith("/saved_model.pb")}
    assert len(versions) == 1, "the repository should contain only the newest version"


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert top == {"digitforge", *PACKAGES}


def test_the_client_installs_exactly_six_libraries(wheel: zipfile.ZipFile) -> None:
    requirements = wheel_metadata(wheel).get_all("Requires-Dist") or []
    unconditional = [each for each in requirements if "extra ==" not in each]
    assert names_of(unconditional) == {"numpy", "grpcio", "protobuf", "click", "rich", "pillow"}


def test_the_wheel_has_exactly_the_documented_extras(wheel: zipfile.ZipFile) -> None:
    extras = wheel_metadata(wheel).get_all("Provides-Extra") or []
    assert set(extras) == {
        *CLIENTS_EXTRAS,
        "training",
        "tensorboard",
        "serving",
        "otel",
        "evaluation",
        "all",
        "docs",
        "dev",
    }


def test_every_component_with_a_command_has_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for target in project["entry-points"][ENTRY_POINT_GROUP].values():
        component = target.partition(".")[0].removeprefix("digitforge_")
        assert component == "client" or component in project["optional-dependencies"]


def declared(extra: str) -> set[str]:
    """Distributions that a component may import: those of the client and of its extra, including nested extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = list(project["dependencies"])
    optional = {"client": [*CLIENTS_EXTRAS], "serving": ["serving", "otel"]}
    optional |= {component: [component, "parquet"] for component in ("training", "evaluation")}
    waiting = optional[extra]
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            nested = re.fullmatch(r"digitforge\[([\w,]+)\]", requirement)
            if nested:
                waiting += nested[1].split(",")
            else:
                requirements.append(requirement)
    return {name.lower() for name in names_of(requirements)}


def imported(package: Path) -> set[str]:
    """Top-level names that the modules of *package* import, including imports inside functions."""
    names = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("component", ["client", "training", "serving", "evaluation"])
def test_a_component_imports_only_what_its_extra_installs(component: str) -> None:
    providers = {"mlflow": ["mlflow-skinny"], **metadata.packages_distributions()}  # `dev` leaves mlflow out
    allowed = declared(component) | (CALLERS_OWN if component == "client" else set())
    for name in imported(PACKAGES[f"digitforge_{component}"]) - set(sys.stdlib_module_names) - set(PACKAGES):
        offered = {provider.lower().replace("_", "-") for provider in providers.get(name, [name])}
        assert offered & allowed, f"{component} imports {name}"


# --- documents


def documents() -> list[Path]:
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not any(part.startswith(".") or part in ("runs", "build", "dist") for part in path.relative_to(ROOT).parts)
    ]


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub generates them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.S), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_has_a_target(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.S)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"<img[^>]+src=\"([^\"]+)\"", text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name}: {target}"
        assert place.is_relative_to(ROOT), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{document.name}: {target}"


# --- workflows


def test_a_tag_publishes_packages_site_and_image() -> None:
    workflows = {
        path.name: yaml.load(path.read_text("utf-8"), yaml.BaseLoader)  # BaseLoader: "on" is not a boolean
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
    }
    release, site = workflows["release.yml"], workflows["docs.yml"]
    assert release["on"] == {"push": {"tags": ["v*"]}}
    jobs = release["jobs"]
    assert {name for name, job in jobs.items() if "build" in job.get("needs", "")} == {"publish", "docs", "image"}
    assert "workflow_call" in site["on"]
    # a called workflow gets no more permissions than its caller
    assert site["jobs"]["publish"]["permissions"].items() <= jobs["docs"]["permissions"].items()
    (build,) = (step["with"] for step in jobs["image"]["steps"] if "build-push" in step.get("uses", ""))
    assert (ROOT / build["file"]).is_file()
    for job in jobs.values():
        assert "uses" in job or int(job["timeout-minutes"]) <= 60
