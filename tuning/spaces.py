"""The search space of each family, around the settings of a recipe.

Widths, depths, batch and length lie between half and twice what the recipe has, so that one space
serves the small recipes on Python's documentation and the large ones on WikiText-103. Learning
rates and rates of dropout have ranges of their own.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from keras_seq.tuning.parameters import Choice, Float, Int, Parameter
from keras_seq.tuning.space import in_order, setting_of
from keras_seq.zoo import Recipe, registry

RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0)
DOUBLING = (0.5, 1.0, 2.0)
MULTIPLE = 8  # widths are multiples of it, where the recipe's own is one

Space = dict[str, Parameter]


def space(recipe: Recipe | str) -> Space:
    """The search space of a recipe's family.

    The defaults are the recipe's own settings. A setting that the recipe's model does not take is
    left out, as are lengths of data that have none. The result is a plain dict: take entries
    away, replace them, or add others.

    Args:
        recipe: a recipe or the name of one.

    Returns:
        Setting → `Choice`, `Int` or `Float`.

    Raises:
        ValueError: for an unknown name.

    Example:

    >>> space = keras_seq.tuning.space("pru_python_docs")
    >>> space["model.units"].values
    (128, 192, 256, 384, 512)
    >>> space["optimizer.learning_rate@SGD"].when
    {'optimizer.name': ('SGD',)}
    """
    if isinstance(recipe, str):
        recipe = registry.find(recipe).recipe
    settings = _Settings(recipe)
    family = FAMILIES.get(recipe.family, _any_family)
    found = {**family(settings), **_training(recipe)}
    known = settings.known
    kept = {}
    for name, parameter in found.items():
        setting = setting_of(name)
        if setting is None or not setting.startswith("model.") or setting in known:
            kept[name] = parameter
    missing = {name for name in found if name not in kept}
    kept = {name: p for name, p in kept.items() if not set(p.when) & missing}
    return in_order(kept)


def families() -> tuple[str, ...]:
    """The families that have a search space of their own."""
    return tuple(FAMILIES)


class _Settings:
    """A recipe's model settings, with the builder's defaults where it has none."""

    def __init__(self, recipe: Recipe):
        build = registry.find(recipe.name).build
        builder = getattr(build, "builder", build)
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(builder).parameters.items()
            if parameter.default is not parameter.empty
        }
        self.recipe = recipe
        self.values: dict[str, Any] = {**defaults, **recipe.model}
        parameters = inspect.signature(builder).parameters
        self.known = {f"model.{name}" for name in (*parameters, *recipe.model)}

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    @property
    def tied(self) -> bool:
        """Whether the last width must be that of the embedding."""
        return self["head"] == "tied"


def scaled(value: int, ratios: tuple[float, ...] = RATIOS, multiple: int = 1) -> Choice:
    """A choice of whole numbers around a value, all of them multiples of a number."""
    sizes = {max(multiple, round(value * ratio / multiple) * multiple) for ratio in ratios}
    return Choice(tuple(sorted({*sizes, value})), default=value)


def _width(value: int, multiple: int = MULTIPLE, **options: Any) -> Choice:
    if value % multiple:
        multiple = 1
    choice = scaled(value, multiple=multiple)
    return Choice(choice.values, default=value, **options)


def _one_of(value: Any, others: tuple, **options: Any) -> Choice:
    values = others if value in others else (value, *others)
    if isinstance(value, int | float) and not isinstance(value, bool):
        values = tuple(sorted(values))
    return Choice(values, default=value, **options)


def _rate(value: float | None, highest: float = 0.6, **options: Any) -> Float:
    value = float(value or 0.0)
    return Float(0.0, max(highest, value), default=value, **options)


def _regularized(settings: _Settings, **options: Any) -> Space:
    """Activation regularisation, as AWD-LSTM has it."""
    found: Space = {}
    for name in ("activation_regularization", "temporal_activation_regularization"):
        value = float(settings[name] or 0.0)
        found[f"model.{name}"] = Float(0.0, max(3.0, value), default=value, **options)
    return found


def _training(recipe: Recipe) -> Space:
    """Optimizer, learning rate, clipping, batch and length: the same for all families."""
    spec = recipe.optimizer
    names = tuple(dict.fromkeys((spec.name, "Adam", "RAdam", "SGD")))
    found: Space = {"optimizer.name": Choice(names, default=spec.name)}
    ranges = {"SGD": (1e-2, 50.0, 1.0), "NTASGD": (1e-1, 100.0, 30.0)}
    for name in names:
        low, high, usual = ranges.get(name, (1e-4, 3e-2, 2e-3))
        default = spec.learning_rate if name == spec.name else usual
        found[f"optimizer.learning_rate@{name}"] = Float(
            min(low, default),
            max(high, default),
            sampling="log",
            default=default,
            when={"optimizer.name": (name,)},
        )
    momentum = float(spec.options.get("momentum", 0.0))
    found["optimizer.options.momentum"] = Float(
        0.0, 0.95, default=momentum, when={"optimizer.name": ("SGD",)}
    )
    clip = spec.global_clipnorm
    if clip is not None:
        found["optimizer.global_clipnorm"] = Float(
            clip / 4, clip * 4, sampling="log", default=float(clip)
        )
    found["data.batch_size"] = scaled(recipe.data.batch_size, DOUBLING)
    if recipe.task == "language_model" and recipe.data.length is not None:
        found["data.length"] = scaled(recipe.data.length, DOUBLING)
    return found


def _trellisnet(settings: _Settings) -> Space:
    frequency, depth = settings["auxiliary_frequency"], settings["levels"]
    on = {"switch.auxiliary": (True,)}
    # An auxiliary output needs a level: no model has fewer than lie between two of them.
    levels = scaled(depth, (0.5, 0.75, 1.0, 1.25, 1.5)).values
    every = frequency or max(1, depth // 3)
    between = [n for n in scaled(every, DOUBLING).values if n <= max(levels[0], every)]
    levels = tuple(level for level in levels if level >= between[-1])
    found: Space = {
        "model.units": _width(settings["units"]),
        "model.levels": Choice(levels, default=depth),
        "model.weight_normalization": Choice(
            (False, True), default=bool(settings["weight_normalization"])
        ),
        "model.embedding_dropout": _rate(settings["embedding_dropout"], 0.3),
        "model.input_dropout": _rate(settings["input_dropout"]),
        "model.hidden_dropout": _rate(settings["hidden_dropout"]),
        "model.output_dropout": _rate(settings["output_dropout"]),
        "model.weight_dropout": _rate(settings["weight_dropout"]),
        **_regularized(settings),
    }
    if "model.auxiliary_weight" in settings.known:
        off = {"model.auxiliary_frequency": None, "model.auxiliary_weight": 0.0}
        weight = settings["auxiliary_weight"] or 0.05
        found |= {
            "switch.auxiliary": Choice((False, True), default=bool(frequency), sets={"False": off}),
            "model.auxiliary_frequency": Choice(tuple(between), default=every, when=on),
            "model.auxiliary_weight": Float(0.02, 0.5, sampling="log", default=weight, when=on),
        }
    if settings.tied:
        found["model.embedding_dim"] = _width(
            settings["embedding_dim"], also=("model.output_units",)
        )
    return found


def _pru(settings: _Settings) -> Space:
    pyramidal = {"model.unit": ("pru",)}
    units = settings["units"] or 1000 + 200 * {1: 0, 2: 1, 4: 2}[settings["groups"]]
    width, levels = settings["embedding_dim"], settings["levels"]
    return {
        "model.unit": Choice(("pru", "lstm"), default=settings["unit"]),
        "model.units": _width(units, 16),
        "model.embedding_dim": _width(width, 16),
        "model.layers": Int(1, max(4, settings["layers"]), default=settings["layers"]),
        "model.levels": Int(1, max(4, levels), default=levels, when=pyramidal),
        "model.groups": _one_of(settings["groups"], (1, 2, 4), when=pyramidal),
        "model.subsampling": Choice(
            ("average", "max", "skip"), default=settings["subsampling"], when=pyramidal
        ),
        "model.residual": Choice((False, True), default=settings["residual"], when=pyramidal),
        "model.variational": Choice((False, True), default=settings["variational"]),
        "model.embedding_dropout": _rate(settings["embedding_dropout"], 0.3),
        "model.input_dropout": _rate(settings["input_dropout"]),
        "model.dropout": _rate(settings["dropout"]),
        "model.output_dropout": _rate(settings["output_dropout"]),
        "model.weight_dropout": _rate(settings["weight_dropout"]),
        **_regularized(settings),
    }


def _recurrent(settings: _Settings) -> Space:
    found: Space = {
        "model.cell": Choice(("lstm", "gru", "rnn"), default=settings["cell"]),
        "model.units": _width(settings["units"], 10),
        "model.layers": Int(1, max(4, settings["layers"]), default=settings["layers"]),
        "model.variational": Choice((False, True), default=settings["variational"]),
        "model.dropout": _rate(settings["dropout"]),
        "model.input_dropout": _rate(settings["input_dropout"]),
        "model.output_dropout": _rate(settings["output_dropout"]),
    }
    if settings["embedding_dim"]:
        found["model.embedding_dim"] = _width(settings["embedding_dim"], 10)
    return found


def _heads(settings: _Settings) -> tuple[Choice, Choice]:
    """Width and heads, such that any of the one goes with any of the others."""
    heads = settings["heads"]
    counts = _one_of(heads, tuple(n for n in (heads // 2, heads, heads * 2) if n))
    return _width(settings["units"], max(counts.values)), counts


def _attention(settings: _Settings) -> Space:
    units, heads = _heads(settings)
    if any(width % count for width in units.values for count in heads.values):
        heads = Choice((settings["heads"],))
        units = scaled(settings["units"], multiple=settings["heads"])
    return {"model.units": units, "model.heads": heads}


def _blocks(settings: _Settings) -> Space:
    """What R-Transformer and Transformer share."""
    levels = settings["levels"]
    return {
        **_attention(settings),
        "model.levels": Int(1, 2 * levels, default=levels),
        "model.norm_order": Choice(("pre", "post"), default=settings["norm_order"]),
        "model.dropout": _rate(settings["dropout"]),
        "model.embedding_value_dropout": _rate(settings["embedding_value_dropout"]),
        "model.output_dropout": _rate(settings["output_dropout"]),
    }


def _r_transformer(settings: _Settings) -> Space:
    window, layers = settings["window"], settings["local_layers"]
    return {
        **_blocks(settings),
        "model.cell": Choice(("gru", "lstm", "rnn"), default=settings["cell"]),
        "model.window": Int(2, 2 * window, default=window),
        "model.local_layers": Int(1, max(3, layers), default=layers),
    }


def _tcn(settings: _Settings) -> Space:
    kernel = settings["kernel_size"]
    found: Space = {
        "model.kernel_size": Int(2, max(9, kernel), default=kernel),
        "model.weight_normalization": Choice(
            (False, True), default=bool(settings["weight_normalization"])
        ),
        "model.dropout": _rate(settings["dropout"]),
        "model.spatial_dropout": Choice((False, True), default=bool(settings["spatial_dropout"])),
        "model.embedding_value_dropout": _rate(settings["embedding_value_dropout"]),
    }
    if isinstance(settings["units"], int):
        levels = settings["levels"]
        found["model.units"] = _width(settings["units"], 1)
        found["model.levels"] = Int(max(1, levels // 2), 2 * levels, default=levels)
    return found


def _transformer_xl(settings: _Settings) -> Space:
    levels, memory = settings["levels"], settings["memory_length"]
    found: Space = {
        "model.levels": Int(1, 2 * levels, default=levels),
        "model.inner_units": _width(settings["inner_units"]),
        "model.normalize_first": Choice((False, True), default=settings["normalize_first"]),
        "model.dropout": _rate(settings["dropout"]),
        "model.attention_dropout": _rate(settings["attention_dropout"], 0.4),
        "model.embedding_dropout": _rate(settings["embedding_dropout"], 0.3),
    }
    if settings["head_units"] is None:  # else the width of the heads is fixed with the others
        found |= _attention(settings)
    if memory and not settings["span"]:
        found["model.memory_length"] = scaled(memory, DOUBLING)
    return found


def _equilibrium(settings: _Settings) -> Space:
    """Solver, gradient and Jacobian regularisation of a deep equilibrium."""
    steps, phantom = settings["max_steps"], {"model.gradient": ("phantom",)}
    regularized = {"switch.jacobian": (True,)}
    return {
        "model.gradient": Choice(("implicit", "one_step", "phantom"), default=settings["gradient"]),
        "model.phantom_steps": Int(2, 8, default=settings["phantom_steps"], when=phantom),
        "model.max_steps": scaled(steps, (0.5, 0.75, 1.0, 1.5)),
        "model.tolerance": Float(
            min(1e-4, settings["tolerance"]), 1e-1, sampling="log", default=settings["tolerance"]
        ),
        "switch.jacobian": Choice(
            (False, True),
            default=settings["jacobian_weight"] > 0,
            sets={"False": {"model.jacobian_weight": 0.0}},
        ),
        "model.jacobian_weight": Float(
            0.1,
            max(4.0, settings["jacobian_weight"]),
            sampling="log",
            default=settings["jacobian_weight"] or 1.0,
            when=regularized,
        ),
        "model.jacobian_frequency": Float(
            0.05, 1.0, default=min(1.0, settings["jacobian_frequency"]), when=regularized
        ),
        "model.hidden_dropout": _rate(settings["hidden_dropout"]),
        "model.input_dropout": _rate(settings["input_dropout"]),
        "model.output_dropout": _rate(settings["output_dropout"]),
    }


def _deq_trellisnet(settings: _Settings) -> Space:
    found: Space = {
        "model.units": _width(settings["units"]),
        "model.weight_dropout": _rate(settings["weight_dropout"]),
        **_equilibrium(settings),
    }
    if settings.tied:
        found["model.embedding_dim"] = _width(
            settings["embedding_dim"], also=("model.output_units",)
        )
    return found


def _deq_transformer(settings: _Settings) -> Space:
    found: Space = {
        "model.inner_units": _width(settings["inner_units"]),
        "model.attention_dropout": _rate(settings["attention_dropout"], 0.4),
        **_equilibrium(settings),
    }
    own_width = settings["embedding_dim"] is None and settings.recipe.task == "language_model"
    if own_width:
        found |= _attention(settings)
    if settings["memory_length"] and not settings["span"]:
        found["model.memory_length"] = scaled(settings["memory_length"], DOUBLING)
    return found


def _any_family(settings: _Settings) -> Space:
    """What most models have."""
    found: Space = {}
    for name in ("units", "levels", "layers"):
        if isinstance(settings[name], int):
            found[f"model.{name}"] = scaled(settings[name])
    for name in ("embedding_dropout", "input_dropout", "dropout", "output_dropout"):
        if isinstance(settings[name], float):
            found[f"model.{name}"] = _rate(settings[name])
    return found


FAMILIES: Mapping[str, Callable[[_Settings], Space]] = {
    "trellisnet": _trellisnet,
    "pru": _pru,
    "recurrent": _recurrent,
    "r_transformer": _r_transformer,
    "tcn": _tcn,
    "transformer": _blocks,
    "transformer_xl": _transformer_xl,
    "deq_trellisnet": _deq_trellisnet,
    "deq_transformer": _deq_transformer,
}
