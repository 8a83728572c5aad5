"""Public names: where they are found, how they are registered, and what they document."""

import ast
import importlib
import inspect
import pkgutil

import keras
import pytest

import keras_seq

PARTS = tuple(name for name in keras_seq.__all__ if name != "__version__")
# Arguments that Keras documents.
COMMON = {"self", "args", "kwargs", "name", "dtype", "trainable"}


def modules() -> list[str]:
    """Every module of the package but the command line's entry."""
    return sorted(
        found.name
        for found in pkgutil.walk_packages(keras_seq.__path__, "keras_seq.")
        if not found.name.endswith("__main__")
    )


def exported() -> list[type]:
    """Every class that bears a public path of its own."""
    found = {}
    for name in modules():
        for value in vars(importlib.import_module(name)).values():
            if inspect.isclass(value) and "public_path" in vars(value):
                found[value.public_path] = value
    return [found[path] for path in sorted(found)]


EXPORTED = exported()
classes = pytest.mark.parametrize("cls", EXPORTED, ids=lambda cls: cls.public_path)


def test_all_names_of_the_package_resolve():
    for name in keras_seq.__all__:
        assert hasattr(keras_seq, name), name
    assert set(keras_seq.__all__) <= set(dir(keras_seq))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = keras_seq.no_such_name


@pytest.mark.parametrize("part", PARTS)
def test_all_names_of_a_part_resolve(part):
    module = importlib.import_module(f"keras_seq.{part}")
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name), f"keras_seq.{part}.__all__ names {name}"


def test_there_are_public_classes():
    assert len(EXPORTED) > 10


@classes
def test_public_path_leads_to_the_class(cls):
    path, name = cls.public_path.rsplit(".", 1)
    module = importlib.import_module(path)
    assert name == cls.__name__
    assert getattr(module, name) is cls
    assert name in module.__all__, f"{path}.__all__ lacks {name}"


def test_layers_are_listed_for_checkers_of_types():
    """A layer is found without that, but by no editor and no checker."""
    tree = ast.parse(inspect.getsource(keras_seq.layers))
    imported = {
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    missing = set(keras_seq.layers.__all__) - imported
    assert not missing, f"import {missing} in keras_seq/layers/__init__.py, and name it in __all__"


@classes
def test_registered_name(cls):
    registered = keras.saving.get_registered_name(cls)
    assert registered == f"keras_seq>{cls.__name__}"
    assert keras.saving.get_registered_object(registered) is cls


@classes
def test_every_argument_is_documented(cls):
    doc = inspect.getdoc(cls) or ""
    assert doc and vars(cls).get("__doc__"), f"{cls.__name__} has no docstring of its own"
    if "__init__" not in vars(cls):
        return
    arguments = [a for a in inspect.signature(cls.__init__).parameters if a not in COMMON]
    if not arguments:
        return
    assert "Args:" in doc, f"{cls.__name__} has arguments and no Args section"
    missing = [a for a in arguments if f"{a}:" not in doc and f"`{a}`" not in doc]
    # One entry may describe several: "kernel_initializer, bias_initializer: ..."
    missing = [a for a in missing if f"{a}," not in doc]
    assert not missing, f"{cls.__name__} does not document {missing}"


def test_registered_classes_are_exported():
    """A class that is registered with Keras has a public path: what a saved file names is found."""
    paths = {keras.saving.get_registered_name(cls) for cls in EXPORTED}
    registered = [
        name
        for name, value in keras.saving.get_custom_objects().items()
        if inspect.isclass(value) and value.__module__.startswith("keras_seq.")
    ]
    assert not set(registered) - paths


def test_names_of_the_zoo():
    names = keras_seq.zoo.names()
    assert names == sorted(names)
    for name in names:
        assert name in dir(keras_seq.zoo)
        recipe = keras_seq.zoo.recipe(name)
        assert recipe.name == name
        assert callable(getattr(keras_seq.zoo, name))
        assert (inspect.getdoc(getattr(keras_seq.zoo, name)) or "").strip(), f"{name}: no docstring"


def public_values() -> dict[str, object]:
    """Every public class and function of the package, by its path."""
    parts = {part: importlib.import_module(f"keras_seq.{part}") for part in PARTS}
    return {
        f"{part}.{name}": getattr(module, name)
        for part, module in parts.items()
        for name in module.__all__
    }


def test_arguments_have_types():
    """`py.typed` is shipped: what a user calls says which types it takes."""
    untyped = []
    for path, value in public_values().items():
        called = inspect.unwrap(value.__init__ if inspect.isclass(value) else value)  # pyright: ignore
        if not inspect.isfunction(called) or not called.__module__.startswith("keras_seq"):
            continue
        for parameter in inspect.signature(called).parameters.values():
            several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if parameter.annotation is parameter.empty and parameter.name != "self" and not several:
                untyped.append(f"{path}({parameter.name})")
    assert not untyped
