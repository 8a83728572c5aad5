"""Quantization that a saved model keeps."""

import json
import warnings
from typing import Any

import keras

MODES = ("int8", "int4", "float8")


class Quantizable:
    """Quantizes the Keras layers of a model, and says in its configuration which.

    A part of `SequenceModel`. Layers of this library stay as they are.
    """

    quantized: dict[str, Any] | None = None
    built: bool

    def quantize(self, mode=None, config=None, filters=None, **kwargs) -> None:
        """Quantizes the weights of the model's Keras layers: dense layers and embeddings.

        A head that is tied to the embedding reads the table as the embedding does. The cores of
        this library and its heads stay as they are. The model can be saved and loaded.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`.
            config: a `keras.quantizers.QuantizationConfig`, in place of `mode`.
            filters: of `keras.Model.quantize`.
            **kwargs: of `keras.Model.quantize`.

        Raises:
            ValueError: before anything is changed, if the mode is another one, the model is not
                built or is quantized already, or no layer can be.
        """
        chosen = mode if config is None else config.mode
        if chosen not in MODES:
            raise ValueError(
                f"`mode` must be one of {', '.join(map(repr, MODES))}. Received: mode={chosen!r}."
            )
        if self.quantized is not None:
            raise ValueError(
                f"The model is quantized to {self.quantized['mode']!r} already. Received: "
                f"mode={chosen!r}. Quantize the model that it was made from."
            )
        leaves = self._leaves()
        unbuilt = [layer.name for layer in leaves if not layer.built]
        if not self.built or unbuilt:
            raise ValueError(
                "The model must be built before it is quantized. Received: "
                f"{f'layers that are not: {unbuilt[:3]}' if unbuilt else 'one that is not'}. "
                "Call it on a batch of data."
            )
        half = [layer.name for layer in leaves if layer.compute_dtype == "float16"]
        if chosen == "int8" and half:
            raise ValueError(
                "`mode` 'int8' needs layers that compute in float32 or bfloat16. Received: "
                f"float16 in {half[:3]}. Build the model with dtype='float32'."
            )
        free = [index for index, layer in enumerate(leaves) if layer.quantization_mode is None]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a `quantize")
            model: Any = super()
            model.quantize(mode, config=config, filters=filters, **kwargs)
        done = [index for index in free if leaves[index].quantization_mode is not None]
        if not done:
            raise ValueError(
                f"`mode` must be one that a layer of the model can be quantized to. Received: "
                f"mode={chosen!r}, filters={filters!r}."
            )
        own = None if config is None else json.dumps(keras.saving.serialize_keras_object(config))
        self.quantized = {"mode": chosen, "config": own, "layers": done}

    def quantized_config(self) -> dict[str, Any]:
        """The entry of `get_config`, where the model is quantized."""
        if self.quantized is None:
            return {}
        return {"quantized": {**self.quantized, "layers": list(self.quantized["layers"])}}

    def restore_quantization(self) -> None:
        """Quantizes the layers that the configuration names, once the model is built."""
        if self.quantized is None:
            return
        config = self.quantized["config"]
        if config is not None:
            config = keras.saving.deserialize_keras_object(json.loads(config))
        leaves = self._leaves()
        for index in self.quantized["layers"]:
            if leaves[index].quantization_mode is None:
                mode = self.quantized["mode"] if config is None else None
                leaves[index].quantize(mode, config=config)

    def _leaves(self) -> list[Any]:
        """The layers without layers of their own, in the order in which they were made."""
        model: Any = self
        layers = model._flatten_layers(include_self=False)
        return [layer for layer in layers if len(list(layer._flatten_layers())) == 1]
