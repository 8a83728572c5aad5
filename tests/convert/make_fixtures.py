"""Writes the PyTorch files of fixtures/. Needs PyTorch; run it again only to add a kind of file.

python tests/convert/make_fixtures.py
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
FORMATS = {"zip": True, "legacy": False}


class Container(torch.nn.Module):
    """A module that only holds others."""


def tensors() -> "OrderedDict[str, torch.Tensor]":
    """Every supported type and every way in which a tensor may lie in its storage."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    found = OrderedDict()
    found["plain"] = base
    found["transposed"] = base.t()
    found["window"] = base[1:, 1::2]
    found["expanded"] = torch.tensor([[2.5]]).expand(2, 3)
    found["scalar"] = torch.tensor(7.0)
    found["empty"] = torch.zeros(0, 3)
    found["parameter"] = torch.nn.Parameter(base[:2, :2].clone())
    for name in ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"):
        found[name] = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    found["bool"] = torch.tensor([True, False, True])
    return found


def module_of(parameters: dict[str, np.ndarray], aliases: dict[str, str]) -> Container:
    """A tree of modules with the given parameters; aliases are the same parameter."""
    root, made = Container(), {}
    for name in [*parameters, *aliases]:
        module, (*path, leaf) = root, name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, Container())
            module = module._modules[part]
        source = aliases.get(name, name)
        if source not in made:
            made[source] = torch.nn.Parameter(torch.tensor(parameters[source]))
        module.register_parameter(leaf, made[source])
    return root


def without_source(_):
    """Keeps the text of classes, which the older format stores with a module, out of the files."""
    raise OSError


def main() -> None:
    torch.serialization.get_source_lines_and_file = without_source
    golden = np.load(HERE.parent / "golden" / "trellis_lm_tied_wn.npz")
    aliases = json.loads(str(golden["config"]))["aliases"]
    parameters = {k.removeprefix("param/"): golden[k] for k in golden if k.startswith("param/")}
    model = module_of(parameters, aliases)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    contents = {
        "tensors": tensors(),
        "trellis_lm": model.state_dict(),
        "trellis_lm_checkpoint": {
            "epoch": 3,
            "state_dict": OrderedDict((f"module.{k}", v) for k, v in model.state_dict().items()),
            "optimizer": optimizer.state_dict(),
            "best": torch.tensor(1.5),
        },
        "trellis_lm_module": [model, torch.nn.CrossEntropyLoss(), optimizer],
    }
    for name, content in contents.items():
        for suffix, zipped in FORMATS.items():
            path = HERE / "fixtures" / f"{name}_{suffix}.pt"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
