"""Small deep equilibria of a Transformer's block."""

import keras

from keras_seq import layers
from small import Small, equilibrium

# The equilibria differ from word to word.
SOLVED = {"tolerance": 1e-7, "inference_max_steps": 100, "injection_deviation": 3.0}
STRENGTH = 20.0  # of the injection: with it the block contracts
STRONG = {**SOLVED, "injection_deviation": 60.0}  # where fresh weights do not contract otherwise

SMALL = Small(
    causal={
        "DeepEquilibrium, attention": lambda **options: equilibrium(
            layers.DEQTransformerCell(
                8,
                heads=2,
                inner_units=12,
                memory_length=6,
                injection_initializer=keras.initializers.RandomNormal(stddev=STRENGTH),
            ),
            **options,
        ),
    },
    exact={"DeepEquilibrium, attention": {"solver": "broyden", "max_steps": 40, "tolerance": 1e-7}},
    dropping={
        "DeepEquilibrium, attention": lambda: equilibrium(
            layers.DEQTransformerCell(
                8, heads=2, inner_units=12, memory_length=6, hidden_dropout=0.5, seed=1
            )
        ),
    },
    parts={
        "DEQTransformerCell": lambda **options: layers.DEQTransformerCell(
            8, heads=2, inner_units=12, **options
        ),
    },
    exported={
        "deq_transformer_python_docs": {
            **SOLVED,
            "vocabulary_size": 11,
            "inner_units": 96,
            "memory_length": 16,
            "inference_memory_length": 16,
        },
        "deq_transformer_copy_memory": {**STRONG, "memory_length": 16},
    },
    trained={
        "deq_transformer_python_docs": {
            # As many steps for every sequence, whether its solve has ended or not.
            "precision": "float64",
            "model.max_steps": 8,
            "model.inference_max_steps": 8,
            "model.tolerance": 1e-12,
            "model.backward_max_steps": 8,
            "model.backward_tolerance": 1e-12,
            "model.jacobian_weight": 0.0,  # its vectors are drawn by each device
            "model.norm_order": "post",  # few steps with it leave rounding errors of 1e-4
            "model.units": 8,
            "model.heads": 2,
            "model.inner_units": 16,
            "model.memory_length": 8,
            "model.inference_memory_length": 8,
        },
    },
    solved=SOLVED,
)
