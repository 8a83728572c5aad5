"""The package list, the links, the version and the built wheel."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import keras_seq

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("pipelines", "tuning", "zoo")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def folder_of(package: str) -> Path:
    """The folder that holds a package's files, links resolved."""
    return (ROOT / Path(*package.split("."))).resolve()


def packages_on_disk() -> set[str]:
    """Every package in the checkout, the top-level folders under their names in `keras_seq`."""
    found = set()
    for top, name in [("keras_seq", "keras_seq"), *((n, f"keras_seq.{n}") for n in LINKS)]:
        for init in (ROOT / top).rglob("__init__.py"):  # does not follow links
            inner = init.parent.relative_to(ROOT / top).parts
            if not set(inner) & set(LINKS) or top != "keras_seq":
                found.add(".".join((name, *inner)))
    return found


def test_package_list_equals_the_folders():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(set(listed)) == sorted(listed), "a package is listed twice"
    assert set(listed) == packages_on_disk()


def test_every_source_folder_is_a_package():
    for package in packages_on_disk():
        for child in folder_of(package).iterdir():
            if child.is_dir() and not child.is_symlink() and any(child.glob("*.py")):
                assert (child / "__init__.py").is_file(), (
                    f"{child} holds modules but no __init__.py"
                )


def test_packages_inside_a_link_are_mapped():
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if package.split(".")[1:2] and package.split(".")[1] in LINKS:
            ancestors = [package.rsplit(".", n)[0] for n in range(package.count("."))]
            assert any(a in mapping for a in (package, *ancestors)), f"{package} has no package-dir"
    for package, folder in mapping.items():
        assert folder_of(package) == (ROOT / folder).resolve()


@pytest.mark.parametrize("name", LINKS)
def test_top_level_folders_are_linked(name):
    link = ROOT / "keras_seq" / name
    assert link.is_symlink(), f"keras_seq/{name} must be a symbolic link to ../{name}"
    assert link.readlink() == Path("..", name)
    assert (ROOT / name / "__init__.py").is_file()


@pytest.mark.parametrize("name", LINKS)
def test_linked_packages_are_loaded_once(name):
    module = getattr(keras_seq, name)
    assert module.__name__ == f"keras_seq.{name}"
    assert name not in sys.modules, f"`import {name}` loaded a second copy"


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z0-9.]+)?", keras_seq.__version__)
    assert metadata.version("keras-seq") == keras_seq.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{keras_seq.__version__}]" in changelog, "CHANGELOG.md lacks this version"
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(keras_seq.__version__)}$", citation, re.M)


def test_typed_marker_and_console_script():
    assert (ROOT / "keras_seq" / "py.typed").is_file()
    scripts = {e.name: e.value for e in metadata.entry_points(group="console_scripts")}
    assert scripts["keras-seq"] == "keras_seq.cli:main"


def test_python_versions_agree():
    listed = [c.rsplit(" ", 1)[1] for c in PROJECT["project"]["classifiers"] if ":: 3." in c]
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    assert listed == [f"3.{minor}" for minor in range(int(low), int(high))]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{low}"
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == f"3.{low}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in a wheel that is built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")
    for name in ("keras_seq", *LINKS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "absent from the `packages`" not in built.stdout + built.stderr
    (path,) = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_wheel_holds_every_file_once(wheel):
    expected = {"keras_seq/py.typed"}
    for package in packages_on_disk():
        for file in folder_of(package).iterdir():
            if file.is_file():
                expected.add(f"{package.replace('.', '/')}/{file.name}")
    shipped = [file for file in (ROOT / "zoo" / "shipped").rglob("*") if file.is_file()]
    assert shipped
    expected |= {f"keras_seq/{file.relative_to(ROOT)}" for file in shipped}
    content = [name for name in wheel if ".dist-info/" not in name]
    assert sorted(content) == sorted(expected)


def test_wheel_holds_the_licence(wheel):
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_the_list_of_slow_tests_names_tests():
    """`tests/slow_tests.txt` holds what exists; `pytest -m ""` runs it too."""
    for line in (ROOT / "tests" / "slow_tests.txt").read_text().splitlines():
        path, *_, name = line.split("[")[0].split("::")
        assert f"def {name}(" in (ROOT / path).read_text(), line
