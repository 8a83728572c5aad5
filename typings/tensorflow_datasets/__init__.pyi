# TensorFlow Datasets' own annotations are partial: all of it is Any here,
# whether or not it is installed where pyright runs.
from typing import Any

def __getattr__(name: str) -> Any: ...
