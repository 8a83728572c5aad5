"""The direction of imports, and a few rules that hold in every source file."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What each part of the package may import besides itself. `base` is the private modules
# keras_seq/_*.py; nothing may import `cli` but `__main__`.
_MODEL_PARTS = {"base", "solvers", "gradients", "ops", "layers", "losses", "metrics", "optimizers"}
ARROWS = {
    "base": set(),
    "solvers": {"base"},
    "gradients": {"base", "solvers"},
    "ops": {"base", "gradients"},
    "layers": {"base", "solvers", "gradients", "ops", "metrics"},
    "losses": {"base"},
    "metrics": {"base", "solvers"},
    "optimizers": {"base"},
    "models": _MODEL_PARTS,
    "zoo": _MODEL_PARTS | {"models"},
    "pipelines": {"base"},
    "generation": _MODEL_PARTS | {"models", "pipelines"},
    "export": _MODEL_PARTS | {"models", "pipelines", "generation"},
    "convert": _MODEL_PARTS | {"models", "zoo"},
    "training": _MODEL_PARTS | {"models", "zoo", "pipelines"},
    "analysis": _MODEL_PARTS | {"models", "zoo", "pipelines", "training"},
    "tuning": _MODEL_PARTS | {"models", "zoo", "pipelines", "training"},
    "cli": _MODEL_PARTS
    | {"models", "zoo", "pipelines", "generation", "export", "convert", "training", "tuning"}
    | {"analysis"},
    "__main__": {"cli"},
    "__init__": _MODEL_PARTS | {"models"},
}

# Parts that run on any backend of Keras.
NO_TENSORFLOW = ("layers", "losses", "metrics", "ops", "solvers", "zoo")
# Their files that have an operation of TensorFlow where it is the backend, and another elsewhere.
WITH_TENSORFLOW = {"keras_seq.ops.halves", "keras_seq.ops.time_parts", "keras_seq.solvers._backend"}

# Installed by an extra, or slow to import: only inside the function that needs it.
ONLY_INSIDE_FUNCTIONS = (
    "h5py",
    "keras_tuner",
    "matplotlib",
    "mido",
    "scipy",
    "tensorboard",
    "tensorflow_datasets",
    "tensorflow_serving",
    "tensorflow_text",
)
NEVER = ("jax", "torch", "pipelines", "tuning", "zoo")
# But for the half of a module that is JAX's, inside the functions that need it.
OF_JAX = ("keras_seq.gradients._jax",)


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, its line, and whether importing the file runs it."""

    module: str
    line: int
    at_import: bool


def source_files() -> dict[str, Path]:
    """Module names and files of the whole package."""
    found = {}
    for top, name in [("keras_seq", "keras_seq")] + [
        (n, f"keras_seq.{n}") for n in ("pipelines", "tuning", "zoo")
    ]:
        for file in sorted((ROOT / top).rglob("*.py")):
            inner = file.relative_to(ROOT / top).with_suffix("").parts
            if top == "keras_seq" and inner[0] in ("pipelines", "tuning", "zoo"):
                continue
            found[".".join((name, *inner))] = file
    return found


FILES = source_files()
TREES = {name: ast.parse(file.read_text(), str(file)) for name, file in FILES.items()}


def part_of(module: str) -> str:
    """The part of the package that a module belongs to, `keras_seq.layers.trellis` to `layers`."""
    path = module.split(".")
    if len(path) == 1:
        return "__init__"
    if path[1].startswith("_") and path[1] not in ("__init__", "__main__"):
        return "base"
    return path[1]


def imports_of(module: str) -> Iterator[Import]:
    """Every import of a file, `from keras_seq import layers` as `keras_seq.layers`."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                origin = ".".join([*package, *filter(None, [origin])])
            if origin == "keras_seq":
                for alias in node.names:
                    yield Import(f"{origin}.{alias.name}", node.lineno, at_import)
            else:
                yield Import(origin, node.lineno, at_import)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not inside)

    yield from visit(TREES[module], True)


def place(module: str, line: int) -> str:
    return f"{FILES[module].relative_to(ROOT)}:{line}"


def test_every_part_has_its_arrows():
    unknown = {part_of(module) for module in FILES} - set(ARROWS)
    assert not unknown, f"say in ARROWS what {unknown} may import"


def test_arrows():
    wrong = []
    for module in FILES:
        part = part_of(module)
        for found in imports_of(module):
            if part == "__init__" and not found.at_import:
                continue  # what only type checkers see
            if found.module.split(".")[0] != "keras_seq" or found.module == "keras_seq":
                continue
            target = part_of(found.module)
            if target != part and target not in ARROWS[part]:
                wrong.append(f"{place(module, found.line)}: {part} must not import {target}")
    assert not wrong, "\n".join(wrong)


def test_arrows_have_no_cycle():
    order, left = [], dict(ARROWS)
    while left:
        free = [part for part, targets in left.items() if not targets & set(left) - {part}]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        left = {part: targets for part, targets in left.items() if part not in free}
    assert order.index("layers") < order.index("models") < order.index("zoo") < order.index("cli")


@pytest.mark.parametrize("part", NO_TENSORFLOW)
def test_no_tensorflow_in(part):
    wrong = [
        place(module, found.line)
        for module in FILES
        if part_of(module) == part
        for found in imports_of(module)
        if found.module.split(".")[0] == "tensorflow"
    ]
    assert not wrong, f"{part} use keras.ops alone, but TensorFlow is imported at {wrong}"


def test_tensorflow_is_taken_from_the_backend_in_few_files():
    """`keras_seq._backend.tf` is `None` on other backends: who takes it must say what they do."""
    takers = {
        module
        for module, tree in TREES.items()
        if part_of(module) in NO_TENSORFLOW
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "keras_seq._backend"
        if "tf" in [alias.name for alias in node.names]
    }
    assert takers == WITH_TENSORFLOW


def test_the_whole_package_is_not_imported_from_within():
    wrong = [
        place(module, found.line)
        for module in FILES
        for found in imports_of(module)
        if found.module == "keras_seq" and part_of(module) not in ("cli", "__main__")
    ]
    assert not wrong, f"import the sub-package, not keras_seq: {wrong}"


def test_optional_packages_are_imported_where_they_are_used():
    wrong = [
        f"{place(module, found.line)}: {found.module}"
        for module in FILES
        for found in imports_of(module)
        if found.at_import
        and found.module.split(".")[0] in ONLY_INSIDE_FUNCTIONS
        and ".tfds_builders" not in module  # itself imported inside the function that needs it
    ]
    assert not wrong, "import inside the function that needs it:\n" + "\n".join(wrong)


def test_no_other_framework_and_no_second_copy():
    wrong = [
        f"{place(module, found.line)}: {found.module}"
        for module in FILES
        for found in imports_of(module)
        if found.module.split(".")[0] in NEVER
        and (found.module != "jax" or found.at_import or module not in OF_JAX)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_assert():
    wrong = [
        place(module, node.lineno)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, f"raise an error that says what to do instead of assert: {wrong}"


def test_no_tensor_is_kept_on_a_layer():
    """State goes in and comes out: `call` sets no attribute."""
    wrong = []
    for module, tree in TREES.items():
        if part_of(module) not in ("layers", "models"):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and function.name == "call":
                for node in ast.walk(function):
                    if (
                        isinstance(node, ast.Attribute)
                        and isinstance(node.ctx, ast.Store)
                        and isinstance(node.value, ast.Name)
                        and node.value.id == "self"
                    ):
                        wrong.append(f"{place(module, node.lineno)}: self.{node.attr}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is():
    wrong = [
        str(FILES[module].relative_to(ROOT))
        for module, tree in TREES.items()
        if not ast.get_docstring(tree) and FILES[module].name not in ("__main__.py", "_version.py")
    ]
    assert not wrong, f"no docstring at the top of {wrong}"


# Where a file is written in another way than by `_files`: what nobody else sees before it is moved
# to its place, or only this process has.
WRITERS = {
    "keras_seq._files": "they are the way",
    "keras_seq.export.exporter": "a version's folder is renamed when it is whole",
    "keras_seq.pipelines.vocabulary": "a folder of this process",
    "keras_seq.training.joining": "a folder of this process",
}


def test_files_are_written_whole():
    """By `_files`, also those that the user names; a writer gets the `temporary` name."""
    wrong = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, name = ast.unparse(node.func.value), node.func.attr
            given = " ".join(map(ast.unparse, node.args))
            writes = name in ("write_text", "write_bytes") and owner not in ("_files", "temporary")
            writes |= name == "open" and bool(re.search(r"'[rb]?[wxa+]", given))
            writes &= "os.devnull" not in owner
            writes |= name in ("savefig", "savez", "tofile") and not re.search(
                r"temporary|^data$|^file$", given
            )
            if writes and owner != "temporary" and module not in WRITERS:
                wrong.append(f"{place(module, node.lineno)}: {ast.unparse(node)}")
    assert not wrong, "write with _files.atomic:\n" + "\n".join(wrong)
