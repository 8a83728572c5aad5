"""The documentation is true: its code runs, its commands parse, its tables and links hold."""

import contextlib
import doctest
import importlib
import importlib.util
import inspect
import io
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_seq

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its fence, its text, its first line, the line before it."""

    info: tuple[str, ...]
    text: str
    line: int
    before: str

    @property
    def title(self) -> str:
        """The file that the block is; empty for a block that is none."""
        found = re.search(r'\btitle="(.*?)"', " ".join(self.info))
        return found[1] if found else ""


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page; a block that is indented in a list is taken out of it."""
    lines = page.read_text().splitlines()
    start, indent, info, before = None, "", (), ""
    for number, line in enumerate(lines):
        fence = re.match(r"^( *)```(.*)$", line)
        if start is None:
            if fence:
                start, indent, info = number, fence[1], tuple(fence[2].split())
            elif line.strip():
                before = line.strip()
        elif fence and fence[1] == indent and not fence[2].strip():
            text = "\n".join(inner.removeprefix(indent) for inner in lines[start + 1 : number])
            yield Block(info, text + "\n", start + 1, before)
            start = None
    assert start is None, f"{page.name}: the block at line {start} is not closed"


def script(path: str) -> types.ModuleType:
    """A file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)
# Pages whose code takes longer than six seconds.
LONG = [
    "docs/analysis.md",
    "docs/deq_gradients.md",
    "docs/generation.md",
    "docs/my_own_text.md",
    "docs/pipelines.md",
    "docs/scaling.md",
    "docs/sequence_models.md",
    "docs/serving.md",
    "docs/training.md",
    "docs/tuning.md",
    "docs/layers/deep_equilibrium.md",
    "docs/layers/deq_transformer.md",
    "docs/layers/pru.md",
    "docs/layers/r_transformer.md",
]
pages_by_time = pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if name_of(page) in LONG else page
        for page in PAGES
    ],
    ids=name_of,
)


@contextlib.contextmanager
def registries_kept() -> Iterator[None]:
    """Takes back what a page registers: zoo entries, spaces, mappings, cases, Keras classes."""
    from golden_cases import cases

    from keras_seq.convert import mappings
    from keras_seq.tuning.spaces import registry as spaces
    from keras_seq.zoo import registry

    policy = keras.config.dtype_policy()
    custom = keras.saving.get_custom_objects()
    named: list[dict] = [registry._ENTRIES, spaces._FAMILIES, cases._CASES, custom]
    kept = [dict(registered) for registered in named]
    listed: list = mappings._MAPPINGS
    count = len(listed)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        del listed[count:]
        for registered, before in zip(named, kept, strict=True):
            registered.clear()
            registered.update(before)


def at_most(steps: int, fit):
    """`fit` with at most so many steps an epoch, and two epochs."""

    def limited(self, x, *args, epochs=1, **kwargs):
        return fit(self, x.take(steps), *args, epochs=min(epochs, 2), **kwargs)

    return limited


@pages_by_time
def test_code_runs(page, tmp_path, monkeypatch):
    """Every `python` block runs, in order; `python notest` is left out.

    A block with a `title`, the path of a file, is that module. The others share one namespace.
    """
    blocks = [b for b in blocks_of(page) if b.info[:1] == ("python",) and "notest" not in b.info]
    if not blocks:
        pytest.skip("no code on this page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_SEQ_DATA", raising=False)  # a page's reader need not have set it
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if page.name == "README.md":  # its training takes minutes
        monkeypatch.setattr(keras.Model, "fit", at_most(10, keras.Model.fit))
    with registries_kept(), contextlib.redirect_stdout(io.StringIO()):
        for block in blocks:
            source = "\n" * block.line + block.text  # so that a traceback shows the page's own line
            names = module_at(block.title, monkeypatch) if block.title else namespace
            exec(compile(source, str(page), "exec"), names)
            if block.title.startswith("tests/"):
                for name in [name for name in names if name.startswith("test_")]:
                    names[name]()


def module_at(path: str, monkeypatch) -> dict[str, Any]:
    """The names of a file that a page shows, which is a module until the test ends."""
    parts = path.removesuffix(".py").split("/")
    if parts[0] == "tests":
        parts = parts[-1:] if parts[-1].startswith("test_") else parts[1:]
    elif parts[0] != "keras_seq":
        parts.insert(0, "keras_seq")
    module = types.ModuleType(".".join(parts))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return vars(module)


@pytest.fixture(scope="module")
def with_files_of_pages(tmp_path_factory):
    """A copy of the package and its tests with the files that pages show, and their paths."""
    folder = tmp_path_factory.mktemp("tree")
    left_out = shutil.ignore_patterns("shipped", "golden", "__pycache__")
    for name in ("keras_seq", "zoo", "pipelines", "tuning", "tests", "typings"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = {block.title: block.text for page in PAGES for block in blocks_of(page) if block.title}
    assert len(files) >= 5
    for path, text in files.items():
        assert not (folder / path).exists(), f"{path} exists"
        (folder / path).write_text(text)
    return folder, list(files)


def check_by(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stdout + result.stderr


def test_files_of_pages_are_tidy(with_files_of_pages):
    folder, paths = with_files_of_pages
    ruff = [sys.executable, "-m", "ruff"]
    check_by([*ruff, "check", "--no-cache", *paths], folder)
    check_by([*ruff, "format", "--no-cache", "--check", *paths], folder)


def test_files_of_pages_have_types(with_files_of_pages):
    folder, paths = with_files_of_pages
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    check_by([*command, *paths], folder)


def test_trellisnet_has_80_lines():
    first = next(blocks_of(DOCS / "trellisnet_in_80_lines.md"))
    assert len(first.text.splitlines()) <= 80


# What every family is asked for.
OF_ALL_FAMILIES = (
    "tests/layers/test_contract.py",
    "tests/layers/test_inputs.py",
    "tests/layers/test_trainable.py",
    "tests/zoo/test_recipes.py",
    "tests/tuning/test_space.py",
    "tests/generation/test_families.py",
    "tests/export/test_zoo_models.py",
    "tests/training/test_devices.py",
    "tests/analysis/test_cost.py",
)


@pytest.mark.slow
def test_the_family_of_the_guide_passes_the_tests_of_all(with_files_of_pages):
    """It does so by its files alone: none that was there is changed."""
    folder, _ = with_files_of_pages
    own = "minimal_gated_unit or MinimalGatedUnit"
    complete = "every_family_of or every_family_with or every_public or no_family"
    options = ["-v", "-n", "0", "-m", "", "-p", "no:cacheprovider", "-k", f"{own} or {complete}"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *OF_ALL_FAMILIES],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stdout[-6000:] + result.stderr[-2000:]
    # What a saved model names is registered by importing the package alone.
    named = "import keras_seq; print(keras_seq.layers.MinimalGatedUnit.public_path)"
    check_by([sys.executable, "-c", named], folder)
    for file in OF_ALL_FAMILIES:
        passed = re.findall(rf"^{file}::(.*) PASSED", result.stdout, re.M)
        assert any(re.search("minimal_?gated_?unit", name, re.I) for name in passed), file


@pages
def test_code_that_is_not_run_says_why(page):
    """The line before a `notest` block names what it needs."""
    reason = re.compile(r"\b(need|require|download|server|GPU|corpus|hours|minutes|worker)", re.I)
    for block in blocks_of(page):
        assert block.info, f"{name_of(page)}:{block.line}: say what the block holds (```text ...)"
        if "notest" in block.info:
            assert reason.search(block.before), f"{name_of(page)}:{block.line} gives no reason"


def commands_of(block: Block) -> Iterator[list[str]]:
    """The `keras-seq` commands of a shell block, as lists of words."""
    for line in block.text.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ")
        with contextlib.suppress(ValueError):
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words, command = list(lexer), []
            for word in [*words, ";"]:
                if not set(word) <= set(";&|<>()"):
                    command.append(word)
                    continue
                yield from _ours(command)
                command = []


def _ours(words: list[str]) -> Iterator[list[str]]:
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words and words[0].rsplit("/", 1)[-1] == "keras-seq":
        yield words[1:]
    elif words[1:3] == ["-m", "keras_seq"]:
        yield words[3:]


@pages
def test_commands_parse(page):
    """Every `keras-seq` command in a shell block names a sub-command and options that exist."""
    from typer.main import get_command

    from keras_seq.cli.app import app

    program = get_command(app)
    known = [*keras_seq.zoo.names(), "minimal_gated_unit_python_docs"]
    families = tuple({f"{name.split('_')[0]}_" for name in known})
    for block in blocks_of(page):
        if block.info[:1] not in (("sh",), ("bash",), ("console",), ("shell",)):
            continue
        for words in commands_of(block):
            where = f"{name_of(page)}:{block.line}: keras-seq {' '.join(words)}"
            assert words, where
            if words[0].startswith("-"):
                continue
            command = program.commands.get(words[0])  # pyright: ignore
            assert command is not None, f"{where}: no such sub-command"
            context = command.context_class(command, info_name=words[0])
            try:
                command.make_parser(context).parse_args(list(words[1:]))
            except Exception as error:
                pytest.fail(f"{where}: {error}")
            for word in words[1:]:
                if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", word) and word.startswith(families):
                    assert word in known, f"{where}: no model {word}"


def test_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    for name, last in (("train", "keras-seq train"), ("tests", "python -m pytest")):
        block = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)```", text, re.S)
        assert block, f"README.md has no command {name!r}"
        assert len(block[1].strip().splitlines()) == 1
        assert block[1].strip().endswith(last)
        assert "pip install" in block[1]


def test_tables_hold_the_zoo():
    """The tables are those that docs/make_tables.py makes from the recipes."""
    module = script("make_tables.py")
    stale = [name_of(page) for page in module.stale()]
    assert not stale, f"run `python docs/make_tables.py`: {stale}"
    models = (DOCS / "models.md").read_text()
    for name in keras_seq.zoo.names():
        assert f"### `{name}`\n" in models, f"docs/models.md lacks {name}"
    layers = {layer for family in module.FAMILIES.values() for layer in family.layers}
    assert layers <= set(keras_seq.layers.__all__)
    assert set(module.FAMILIES) <= {recipe.family for recipe in module.recipes()}


def test_diagrams_are_those_of_the_script():
    module = script("make_diagrams.py")
    for name, text in module.diagrams().items():
        assert (DOCS / "images" / name).read_text() == text, f"run docs/make_diagrams.py: {name}"


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.S | re.M)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).strip()
        found.add(re.sub(r"[\s]+", "-", plain))
    return found


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), f"{name_of(page)} links to {target}: no such heading"


def test_every_page_is_in_the_navigation():
    groups = script("conf.py").navigation.values()
    listed = ["index", *(page for group in groups for page in group)]
    on_disk = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    assert set(listed) == on_disk
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", [name for name in keras_seq.__all__ if name[0] != "_"])
def test_reference_holds_every_public_name(name):
    reference, part = script("_ext/reference.py"), f"keras_seq.{name}"
    assert f"```{{reference}} {part}\n" in (DOCS / "reference" / f"{name}.md").read_text()
    module = importlib.import_module(part)
    public = {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    if name == "zoo":
        public.update(module.names())
    text = reference.markdown_of(part)
    entries = re.findall(r"^`+\{py:(\w+)\} (\w+)", text, re.M)
    assert {entry for kind, entry in entries if kind in ("class", "function", "data")} == public
    for entry in public:
        row = re.search(rf"^\| \[`{entry}`\]\(#{part}.{entry}\) \| (.*) \|$", text, re.M)
        assert row and len(row[1]) > 5, f"{part}.{entry} says nothing of itself"


def test_reference_reads_docstrings():
    text = script("_ext/reference.py").body(
        "Does it.\n\n    a = b\n\nArgs:\n    x: what\n        goes in.\n    **kwargs: more.\n\n"
        "Returns:\n    What comes out.\n\nExample:\n\n>>> 1 + 1\n2"
    )
    assert text.split("\n") == [
        *("Does it.", "", "    a = b", "", "", "**Args**", ""),
        *("- `x`: what", "  goes in.", "- `**kwargs`: more.", ""),
        *("", "**Returns**", "", "What comes out.", ""),
        *("**Example**", "", "", "```pycon", ">>> 1 + 1", "2", "```"),
    ]


def test_pictures_are_described():
    for page in PAGES:
        for description, target in re.findall(r"!\[(.*?)\]\((\S+?)\)", page.read_text()):
            assert len(description) > 10, f"{name_of(page)}: {target} has no description"


def test_extras_that_the_documentation_names_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in PROSE:
        for names in re.findall(r"(?:keras-seq|\.)\[([\w,]+)\]", page.read_text()):
            for name in names.split(","):
                assert name in project["optional-dependencies"], f"{name_of(page)}: [{name}]"


def modules_with_examples() -> list[str]:
    """Modules whose docstrings hold `>>>` examples; found without importing them."""
    found = []
    for module in pkgutil.walk_packages(keras_seq.__path__, "keras_seq."):
        spec = module.module_finder.find_spec(module.name, None)  # pyright: ignore
        if spec and spec.origin and ">>> " in Path(spec.origin).read_text():
            found.append(module.name)
    return sorted(found)


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "keras_seq": keras_seq, "np": np, "ops": keras.ops, "os": os}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
    report = io.StringIO()
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names):
        runner.run(test, out=report.write)
    assert not runner.failures, report.getvalue()[-4000:]
