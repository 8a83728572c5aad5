"""keras-tcn: its arguments, the names of its weights, and its files."""

import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_seq._reading import SLACK
from keras_seq.convert import keras_file
from keras_seq.convert.mappings import ANY_PREFIX, Layout, Slot, Unused, mapping, slots
from keras_seq.convert.reference import (
    ReferenceWeightsError,
    bind,
    load_reference,
    read_arrays,
)
from keras_seq.layers import TCN
from keras_seq.models import FrameModel, SequenceClassifier, SequenceRegressor

_OWN = r"residual_block_\d+/conv1D_0/kernel"
SOURCE = rf"(?:.*/)?{_OWN}"  # a name that no other release has
_POINTWISE = Layout(
    lambda array: array[0], lambda array: (array[None],)
)  # (1, in, out) ↔ (in, out)


def keras_tcn_layer(
    nb_filters: int | Sequence[int] = 64,
    kernel_size: int = 3,
    nb_stacks: int = 1,
    dilations: Sequence[int] = (1, 2, 4, 8, 16, 32),
    padding: str = "causal",
    use_skip_connections: bool = True,
    dropout_rate: float = 0.0,
    return_sequences: bool = False,
    activation: Any = "relu",
    kernel_initializer: Any = "he_normal",
    use_batch_norm: bool = False,
    use_layer_norm: bool = False,
    go_backwards: bool = False,
    return_state: bool = False,
    **kwargs: Any,
) -> TCN:
    """A `TCN` that computes what a `TCN` of keras-tcn with these arguments computes.

    Names, order and defaults of the arguments are those of keras-tcn 3.5.7.

    Args:
        nb_filters: channels of all blocks, or of each block of a stack.
        kernel_size: taps of the convolutions.
        nb_stacks: how often the list of dilations is repeated.
        dilations: of the blocks of a stack.
        padding: `"causal"` or `"same"`.
        use_skip_connections: the output is the sum of the branches of all blocks.
        dropout_rate: rate for whole channels.
        return_sequences: return all outputs, or the last one.
        activation: of the convolutions, the branches and the residual sums.
        kernel_initializer: of all kernels; biases begin with zeros.
        use_batch_norm: batch normalisation after each convolution.
        use_layer_norm: layer normalisation after each convolution.
        go_backwards: read the sequence from its end.
        return_state: changes nothing there, and nothing here: a state is asked for in the call.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: two normalisations; `padding="same"` with `return_sequences=False`, where
            keras-tcn takes the step in the middle.

    Example:

    >>> from keras_seq.convert import keras_tcn_layer
    >>> layer = keras_tcn_layer(nb_filters=8, dilations=(1, 2, 4), return_sequences=True)
    >>> layer.receptive_field, layer.skip_connections
    (29, True)
    """
    if use_batch_norm and use_layer_norm:
        raise ValueError(
            "`use_layer_norm` must be False with `use_batch_norm`. Received: use_batch_norm=True, "
            "use_layer_norm=True. Take one of them."
        )
    if padding == "same" and not return_sequences:
        raise ValueError(
            "`return_sequences` must be True with padding='same': keras-tcn then returns the step "
            "in the middle, which no layer here does. Received: return_sequences=False, "
            "padding='same'. Take step t // 2 of the sequence that the layer returns."
        )
    single = isinstance(nb_filters, int)
    return TCN(
        nb_filters,
        len(dilations) if single else None,
        kernel_size,
        dilations,
        activation,
        weight_normalization=False,
        normalization="batch" if use_batch_norm else "layer" if use_layer_norm else None,
        dropout=dropout_rate,
        spatial_dropout=True,
        stacks=nb_stacks,
        skip_connections=use_skip_connections,
        branch_activation=True,
        padding=padding,
        kernel_initializer=kernel_initializer,
        bias_initializer="zeros",
        residual_initializer=kernel_initializer,
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        **kwargs,
    )


def load_keras_tcn(
    path: str | Path, model: Any = None, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Loads a model of keras-tcn, which need not be installed.

    Args:
        path: a `.keras` file, which says of which layers the model consists; or `.weights.h5`,
            for which `model` is needed.
        model: what gets the weights: a Keras model of the same layers, made with
            `keras_tcn_layer`; a `TCN`, for a file with one; or a `SequenceClassifier`,
            `SequenceRegressor` or `FrameModel` of a `TCN`, for a file of a `TCN` and a `Dense`.
            It must be built. `None`: the model of the file is made.
        custom_objects: further classes of the file, by name.

    Returns:
        The model, not compiled, with the weights of the file.

    Raises:
        ReferenceWeightsError: the file cannot be read or does not fit; nothing was loaded then.

    Example:

    ```python notest
    model = keras_seq.convert.load_keras_tcn("theirs.keras")
    model.save("ours.keras")  # opens wherever keras_seq is installed
    ```
    """
    if model is None:
        model = _model_of(path, custom_objects)
    if isinstance(model, TCN | FrameModel | SequenceClassifier | SequenceRegressor):
        _load_part(model, path)
    else:
        _load_model(model, path)
    return model


# Names --------------------------------------------------------------------------------------------


@mapping(TCN, source=SOURCE)
def tcn_slots(
    layer: TCN, prefix: str = ANY_PREFIX, names: Collection[str] = ()
) -> list[Slot | Unused]:
    """`residual_block_<i>` with `conv1D_0`, `conv1D_1`, `matching_conv1D` and normalisations."""
    prefix = r"(?:.*/)?" if prefix == ANY_PREFIX else prefix
    found: list[Slot | Unused] = []
    for index, block in enumerate(layer.blocks):
        name = rf"{prefix}residual_block_{index}/"
        if block.weight_normalization:
            raise ReferenceWeightsError(
                "`model` must have no normalised weights to take those of keras-tcn. Received: "
                "weight_normalization=True. Make the layer with "
                "`keras_seq.convert.keras_tcn_layer`."
            )
        for place, (kernel, bias) in enumerate((block.first, block.second)):
            found.append(Slot(kernel, (rf"{name}conv1D_{place}/kernel",)))
            found.append(Slot(bias, (rf"{name}conv1D_{place}/bias",)))
        norms = _norm_names(name, names)
        for place, norm in enumerate(block.norms):
            own = norms[place] if place < len(norms) else f"{name}norm_{place}/"
            found += [Slot(weight, (own + weight.name,)) for weight in norm.weights]
        if block.residual is not None:
            kernel, bias = block.residual
            found.append(Slot(kernel, (rf"{name}matching_conv1D/kernel",), _POINTWISE))
            found.append(Slot(bias, (rf"{name}matching_conv1D/bias",)))
        found.append(Unused(rf"{name}SDropout_\d/.*"))  # the state of a random generator
    return found


def _norm_names(block: str, names: Collection[str]) -> list[str]:
    """Patterns for the normalisations of a block, in the order of their numbers."""
    pattern = re.compile(rf"({block}(?:\w+/)?(?:batch|layer)_normalization(?:_(\d+))?/)gamma")
    found = {m[1]: int(m[2] or 0) for m in map(pattern.fullmatch, names) if m}
    return [re.escape(name) for name in sorted(found, key=found.__getitem__)]


@mapping(SequenceClassifier, source=SOURCE, core=TCN)
@mapping(SequenceRegressor, source=SOURCE, core=TCN)
@mapping(FrameModel, source=SOURCE, core=TCN)
def reader_slots(
    model: Any, prefix: str = ANY_PREFIX, names: Collection[str] = ()
) -> list[Slot | Unused]:
    """The `TCN` and a `Dense` after it, as `compiled_tcn` has them."""
    dense = r"(?:.*/)?dense(?:_\d+)?/"
    return [
        *slots(model.core, prefix, names),
        Slot(model.dense.kernel, (dense + "kernel",)),
        Slot(model.dense.bias, (dense + "bias",)),
    ]


# Files --------------------------------------------------------------------------------------------


def _model_of(path: str | Path, custom_objects: Mapping[str, Any] | None) -> Any:
    """The model that a `.keras` file describes, with layers of ours for those of keras-tcn."""
    if Path(path).suffix != ".keras":
        raise ReferenceWeightsError(
            "`model` must be given for a file of weights alone, which does not say what it "
            f"belongs to. Received: model=None, path={str(path)!r}."
        )
    try:
        config = keras_file.read_config(path)
    except (ValueError, FileNotFoundError) as error:
        raise ReferenceWeightsError(str(error)) from None
    config.pop("compile_config", None)
    if not _translate(config):
        raise ReferenceWeightsError(
            f"`path` must be a file with a layer of keras-tcn. {path} has none. Load it with "
            "`keras.saving.load_model`."
        )
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)


def _translate(part: Any) -> int:
    """Puts our layers in the place of keras-tcn's in a configuration; how many there were."""
    if isinstance(part, list):
        return sum(map(_translate, part))
    if not isinstance(part, dict):
        return 0
    own = part.get("config")
    if part.get("class_name") != "TCN" or not isinstance(own, dict) or "nb_filters" not in own:
        return sum(map(_translate, part.values()))
    part.update(keras.saving.serialize_keras_object(keras_tcn_layer(**own)))
    return 1


def _load_part(model: Any, path: str | Path) -> None:
    """The weights of a file with one `TCN` into a layer or a model of ours."""
    if not isinstance(model, TCN):
        load_reference(model, path)
        return
    arrays = _read(path, model)
    layers = _layers_in(arrays)
    if len(layers) != 1:
        raise ReferenceWeightsError(
            "`model` must be a whole Keras model where a file has not one layer of keras-tcn. "
            f"Received: a TCN, for {path} with {sorted(layers) or 'none'}."
        )
    load_reference(model, {n: array for n, array in arrays.items() if n.startswith(layers[0])})


def _load_model(model: Any, path: str | Path) -> None:
    """The weights of a file into a Keras model of the same layers.

    Keras numbers the layers of a file by their classes, of which ours has the same name. So a file
    of ours is written, those weights in it that are not of a `TCN` are replaced, and it is loaded.
    """
    arrays = _read(path, model)
    ours = [layer for layer in model._flatten_layers() if isinstance(layer, TCN)]
    by_name = {layer.name: layer for layer in ours}
    if not ours or len(by_name) < len(ours):
        raise ReferenceWeightsError(
            "`model` must have layers of the class TCN, each with a name of its own. Received: "
            f"{[layer.name for layer in ours]}."
        )
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.weights.h5"
        model.save_weights(written)
        bindings, rest = [], {}
        with keras_file.open_weights(written) as file:
            places = dict(keras_file.walk(file))
            left = dict(arrays)
            for group in _layers_in(arrays):
                layer = by_name.get(_name_at(file, group))
                if layer is None:
                    raise ReferenceWeightsError(
                        f"`model` must have a TCN at the place of `{group}` in {path}. Received: "
                        f"a model with {sorted(by_name)}. Make it of the same layers in the same "
                        "order."
                    )
                own = {name: left.pop(name) for name in arrays if name.startswith(group)}
                bindings += bind(layer, own)
                places = {n: array for n, array in places.items() if not n.startswith(group)}
            shapes = {keras_file.named(place): (place, a.shape) for place, a in places.items()}
        faults = [
            f"left over: `{name}` {left[name].shape}" for name in sorted(set(left) - set(shapes))
        ]
        for name, (place, shape) in shapes.items():
            array = left.get(name)
            if array is None:
                faults.append(f"missing: `{name}` {shape}")
            elif array.shape != shape:
                faults.append(f"shape: `{name}` must be {shape}. Received: {array.shape}")
            rest[place] = array
        if faults:
            lines = "\n  ".join(faults)
            raise ReferenceWeightsError(
                f"The weights do not fit this {type(model).__name__}; nothing was loaded. Make it "
                f"of the same layers.\n  {lines}"
            )
        for binding in bindings:
            binding.slot.variable.assign(binding.value)
        model.save_weights(written)
        _replace(written, rest)
        model.load_weights(written)


def _read(path: str | Path, model: Any) -> dict[str, np.ndarray]:
    """The arrays of a file, if they are not far more than the model has."""
    return read_arrays(path, SLACK + 64 * sum(int(np.prod(w.shape)) for w in model.weights))


def _layers_in(arrays: Mapping[str, Any]) -> list[str]:
    """What stands before the names of each layer of keras-tcn."""
    found = [re.fullmatch(rf"((?:.*/)?){_OWN}", name) for name in arrays]
    return list(dict.fromkeys(match[1] for match in found if match))


def _name_at(file: Any, group: str) -> str:
    """The name of the layer at a place of a file of ours."""
    place = f"{group}vars"
    return str(file[place].attrs.get("name", "")) if place in file else ""


def _replace(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Other values for arrays of a file of weights."""
    import h5py

    with h5py.File(path, "r+") as file:
        for place, array in arrays.items():
            dataset: Any = file[place]
            dataset[...] = array
