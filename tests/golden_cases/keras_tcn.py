"""Golden cases of keras-tcn."""

from typing import Any

import numpy as np

from golden_cases.cases import Golden, case, differentiate
from keras_seq.convert import bind, keras_tcn_layer, load_reference
from keras_seq.layers import TCN

ARGUMENTS = (
    "nb_filters",
    "kernel_size",
    "nb_stacks",
    "dilations",
    "padding",
    "use_skip_connections",
    "dropout_rate",
    "activation",
    "use_batch_norm",
    "use_layer_norm",
)


def _layer(golden: Golden, dtype: str) -> TCN:
    """The layer that a file's `config` describes in keras-tcn's words."""
    given = {name: golden.config[name] for name in ARGUMENTS if name in golden.config}
    return keras_tcn_layer(**given, return_sequences=True, dtype=dtype)


@case("keras_tcn_layer")
def keras_tcn(golden: Golden, dtype: str) -> dict[str, np.ndarray]:
    """The layer; its blocks and their branches."""
    layer = _layer(golden, dtype)
    inputs = golden.float_inputs(dtype)
    layer.build(inputs["x"].shape)
    load_reference(layer, golden.parameters)

    def forward(inputs):
        x = inputs["x"]
        out = layer(x)
        outputs: dict[str, Any] = {"out": out, "last": out[:, -1]}
        for index, block in enumerate(layer.blocks):
            x, branch = block(x, return_branch=True)
            outputs |= {f"block_{index}": x, f"branch_{index}": branch}
        return outputs

    return differentiate(golden, forward, bind(layer, golden.parameters), inputs)
