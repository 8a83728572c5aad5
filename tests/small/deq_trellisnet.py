"""Small deep equilibria of a TrellisNet's level."""

from keras_seq import layers
from small import Small, equilibrium

SOLVED = {"tolerance": 1e-6, "stop": "relative", "inference_max_steps": 100}

SMALL = Small(
    causal={
        "DeepEquilibrium": lambda **options: equilibrium(layers.DEQTrellisCell(4, 3), **options),
    },
    exact={"DeepEquilibrium": {"solver": "broyden", "max_steps": 40, "tolerance": 1e-7}},
    dropping={
        "DeepEquilibrium": lambda: equilibrium(
            layers.DEQTrellisCell(
                4, 3, hidden_dropout=0.5, kernel_initializer="glorot_uniform", seed=1
            )
        ),
    },
    parts={"DEQTrellisCell": lambda **options: layers.DEQTrellisCell(2, 2, **options)},
    exported={
        "deq_trellisnet_wt103": {
            **SOLVED,
            "vocabulary_size": 11,
            "cutoffs": (4, 8),
            "embedding_dim": 8,
            "units": 10,
            "output_units": 8,
            "pretrain_steps": 0,
        },
        "deq_trellisnet_copy_memory": {**SOLVED, "units": 4, "output_units": 4},
    },
    trained={
        "deq_trellisnet_python_docs": {
            # Tight solves, in float64: each device stops when its own rows have converged.
            "precision": "float64",
            "model.solver": "broyden",
            "model.max_steps": 60,
            "model.inference_max_steps": 60,
            "model.tolerance": 1e-10,
            "model.backward_tolerance": 1e-10,
            "model.backward_max_steps": 60,
            "model.embedding_dim": 8,
            "model.units": 6,
            "model.output_units": 8,
            "model.pretrain_steps": 0,
        },
    },
    solved=SOLVED,
)
