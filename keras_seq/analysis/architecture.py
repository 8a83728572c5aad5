"""The blocks of a model: which layers it calls, in which order, with which sizes."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_seq._tasks import TASKS
from keras_seq.layers import EmbeddingDropout, VariationalDropout
from keras_seq.layers.outline import Outlined, Part, Residual
from keras_seq.models import LanguageModel
from keras_seq.models.size import count_numbers
from keras_seq.training import building
from keras_seq.zoo import Recipe

# What a box says of its layer, in this order: sizes, what the layer names itself, and these.
_SIZES = (
    "vocabulary_size", "input_dim", "units", "levels", "output_units", "output_dim",
    "embedding_dim", "inner_units", "heads", "kernel_size", "dilation_rate",
)  # fmt: skip
_MANNERS = (
    "activation", "norm_order", "weight_normalization", "tied", "rate", "dropout",
    "input_dropout", "hidden_dropout", "weight_dropout", "attention_dropout", "latent_dropout",
    "output_dropout",
)  # fmt: skip
_SILENT = (None, False, 0, 0.0, (), [], "linear")
_WORDS = "(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"  # where a word begins within a class's name
_DROPOUTS = (keras.layers.Dropout, EmbeddingDropout, VariationalDropout)


@dataclass(frozen=True)
class Block:
    """A layer of a model and what it is made of.

    Attributes:
        title: its class.
        facts: settings, as `name value`.
        parameters: trainable parameters, all repeats together.
        output: the shape of its output with b for the batch and t for time; empty if not called.
        repeats: how many such blocks follow one another.
        loop: what is repeated with the same weights, in words; empty if nothing is.
        parts: the blocks within.
        ordered: whether the parts are in the order in which they are called.
        residuals: residual connections: the places of the first and of the last part that each goes
            around, and what the input passes on the way, in words; empty for nothing.
    """

    title: str
    facts: tuple[str, ...] = ()
    parameters: int = 0
    output: str = ""
    repeats: int = 1
    loop: str = ""
    parts: tuple["Block", ...] = ()
    ordered: bool = True
    residuals: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Architecture:
    """The blocks of a model from its input to its output.

    Attributes:
        name: of the recipe.
        source: what goes in, with its shape.
        blocks: one after the other.
        result: what comes out, with its shape.
        tied: places of the two blocks that share a table, or `None`.
    """

    name: str
    source: str
    blocks: tuple[Block, ...]
    result: str
    tied: tuple[int, int] | None = None


def architecture(recipe: Recipe | str) -> Architecture:
    """Finds the blocks of a recipe's model by calling it in a graph that is never run.

    Args:
        recipe: a recipe or the name of one.

    Example:

    >>> found = keras_seq.analysis.architecture("tcn_python_docs")
    >>> [block.title for block in found.blocks]
    ['ReversibleEmbedding', 'TCN', 'TiedSoftmax']
    """
    recipe = building.as_recipe(recipe)
    # Sizes that no layer has, so that batch and time are told apart from widths.
    batch, steps = 1021, 1031
    with tf.Graph().as_default():
        model: Any = building.build_model(recipe)
        spec = model.input_spec_for_export()
        calls: list[tuple[Any, Any]] = []
        with _recorded(calls):
            outputs = model(tf.zeros((batch, steps, *spec.shape[2:]), spec.dtype), training=False)
        order = {id(layer): place for place, (layer, _) in reversed(list(enumerate(calls)))}
        shapes = {id(layer): _shape(shape, batch, steps) for layer, shape in calls}
        layers = [layer for layer in model.layers if id(layer) in order]
        layers.sort(key=lambda layer: order[id(layer)])
        layers = [layer for layer in layers if not _idle(layer)]
        blocks = _merged([_block(layer, order, shapes) for layer in layers])
        text = "token ids" if spec.dtype == "int32" else "vectors"
        source = _shape((batch, steps, *spec.shape[2:]), batch, steps)
        result = f"{TASKS[recipe.task].outputs}  {_shape(outputs.shape, batch, steps)}"
        return Architecture(recipe.name, f"{text}  {source}", blocks, result, _tied(model, blocks))


@contextlib.contextmanager
def _recorded(calls: list[tuple[Any, Any]]) -> Iterator[None]:
    """Notes the layers that are called, in the order of their beginnings, with output shapes."""
    original = keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
        place = len(calls)
        calls.append((self, None))
        outputs = original(self, *args, **kwargs)
        first = keras.tree.flatten(outputs)[0]
        calls[place] = (self, getattr(first, "shape", None))
        return outputs

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = original


def _shape(shape: Any, batch: int, steps: int) -> str:
    if shape is None:
        return ""
    names = {batch: "b", steps: "t", None: "?"}
    return f"({', '.join(str(names.get(size, size)) for size in shape)})"


def _idle(layer: Any) -> bool:
    """Whether a layer does nothing, as dropout of rate 0."""
    return isinstance(layer, _DROPOUTS) and not layer.rate


def _block(layer: Any, order: dict[int, int], shapes: dict[int, str]) -> Block:
    if isinstance(layer, Part):
        return Block(layer.title, layer.facts, count_numbers(layer.weights))
    outline = layer.outline() if isinstance(layer, Outlined) else None
    if outline is not None:
        blocks, residuals = _outlined(outline, order, shapes)
        ordered = True
    else:
        parts = [part for part in _parts(layer) if not _idle(part)]
        ordered = all(id(part) in order for part in parts)
        if ordered:
            parts.sort(key=lambda part: order[id(part)])
        blocks, residuals = _merged([_block(part, order, shapes) for part in parts]), ()
    return Block(
        title=type(layer).__name__,
        facts=_facts(layer),
        parameters=count_numbers(layer.trainable_weights),
        output=shapes.get(id(layer), ""),
        loop=_loop(layer),
        parts=blocks,
        ordered=ordered,
        residuals=residuals,
    )


def _outlined(
    outline: Sequence[Any], order: dict[int, int], shapes: dict[int, str]
) -> tuple[tuple[Block, ...], tuple[tuple[int, int, str], ...]]:
    """The parts and the residual connections that a layer tells itself."""
    parts: list[Any] = []
    residuals = []
    for item in outline:
        start = len(parts)
        if isinstance(item, Residual):
            parts.extend(item.parts)
            residuals.append((start, len(parts) - 1, item.through))
        else:
            parts.append(item)
    return _folded_rows([_block(part, order, shapes) for part in parts], residuals)


def _parts(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _facts(layer: Any) -> tuple[str, ...]:
    config = layer.get_config()
    found = []
    own = layer.facts if isinstance(layer, Outlined) else ()
    for name in (*_SIZES, *own, *_MANNERS):
        value = config.get(name)
        if isinstance(value, dict) and name in own:  # an object
            value = re.sub(_WORDS, "_", value["class_name"]).lower()
        if isinstance(value, dict) or any(value is s or value == s for s in _SILENT):
            continue
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) if len(value) <= 6 else _ends(value)
        words = name.replace("_", " ")
        found.append(words if value is True else f"{words} {value}")
    return tuple(found)


def _ends(values: Sequence[Any]) -> str:
    return f"{values[0]}, {values[1]}, …, {values[-1]}"


def _loop(layer: Any) -> str:
    """What a layer repeats with the same weights."""
    if isinstance(layer, keras.layers.RNN):
        return "over time"
    return layer.loop if isinstance(layer, Outlined) else ""


def _merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks that follow one another and are alike, as one with a number.

    The period may be several blocks long: attention and feed-forward layers that take turns. Only
    dilations may differ; all of them are then named.
    """
    keys = [_key(block) for block in blocks]
    for period in range(1, len(blocks) // 2 + 1):
        if len(blocks) % period == 0 and keys == keys[:period] * (len(blocks) // period):
            return _folded(blocks, period)
    found: list[Block] = []
    start = 0
    while start < len(blocks):
        end = start + 1
        while end < len(blocks) and keys[end] == keys[start]:
            end += 1
        found.extend(_folded(blocks[start:end], 1) if end - start > 1 else blocks[start:end])
        start = end
    return tuple(found)


def _folded_rows(
    blocks: list[Block], residuals: list[tuple[int, int, str]]
) -> tuple[tuple[Block, ...], tuple[tuple[int, int, str], ...]]:
    """Parts with residual connections; rows that are alike, connections and all, as one block."""
    keys = [_key(block) for block in blocks]
    for period in range(1, len(blocks) // 2 + 1):
        if len(blocks) % period or keys != keys[:period] * (len(blocks) // period):
            continue
        inner = [row for row in residuals if row[1] < period]
        moved = [
            (first + start, last + start, through)
            for start in range(0, len(blocks), period)
            for first, last, through in inner
        ]
        if moved == residuals:
            (one,) = _folded(blocks, period, wrap=True)
            return (dataclasses.replace(one, residuals=tuple(inner)),), ()
    return tuple(blocks), tuple(residuals)


def _folded(blocks: Sequence[Block], period: int, wrap: bool = False) -> tuple[Block, ...]:
    repeats = len(blocks) // period
    one = tuple(
        dataclasses.replace(
            block,
            parameters=sum(other.parameters for other in blocks[place::period]),
            facts=_common(blocks[place::period]),
            repeats=repeats if period == 1 and not wrap else 1,
        )
        for place, block in enumerate(blocks[:period])
    )
    if period == 1 and not wrap:
        return one
    total = sum(block.parameters for block in one)
    return (Block("block", parameters=total, repeats=repeats, parts=one),)


def _key(block: Block) -> tuple:
    facts = tuple(fact for fact in block.facts if not fact.startswith("dilation rate"))
    inner = tuple(map(_key, block.parts))
    return block.title, facts, block.repeats, block.loop, block.residuals, inner


def _common(blocks: Sequence[Block]) -> tuple[str, ...]:
    """The facts of blocks that are alike up to the dilations."""
    rates = [
        fact.removeprefix("dilation rate ")
        for block in blocks
        for fact in block.facts
        if fact.startswith("dilation rate")
    ]
    if len(set(rates)) < 2:
        return blocks[0].facts
    said = f"dilation rate {', '.join(rates) if len(rates) <= 6 else _ends(rates)}"
    return tuple(said if f.startswith("dilation rate") else f for f in blocks[0].facts)


def _tied(model: Any, blocks: Sequence[Block]) -> tuple[int, int] | None:
    """Embedding and head, where they share a table."""
    if not (isinstance(model, LanguageModel) and model.head.tied):
        return None
    titles = [block.title for block in blocks]
    names = [type(model.embedding).__name__, type(model.head).__name__]
    return (titles.index(names[0]), titles.index(names[1])) if set(names) <= set(titles) else None
