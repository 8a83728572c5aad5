"""New files that need no list: the modules of a folder are found, and what they make public."""

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """Imports all modules of a package, but not the packages within it.

    Args:
        package: its name.
    """
    path = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.iter_modules(path) if not module.ispkg]
    return [importlib.import_module(f"{package}.{name}") for name in names]


def give_classes(package: str) -> None:
    """Gives a package the classes of its modules whose public path leads there.

    So a class of a new file is registered with Keras and has its public name. Checkers of types see
    it when the package imports it by name, too.

    Args:
        package: the name of a package that is being imported.
    """
    given = sys.modules[package]
    for module in modules_of(package):
        for name, value in vars(module).items():
            public = inspect.isclass(value) and vars(value).get("public_path")
            if public == f"{package}.{name}" and not hasattr(given, name):
                setattr(given, name, value)
                given.__all__.append(name)
