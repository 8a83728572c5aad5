"""Settings with which a language model trains on a tiny text in a moment."""

TINY_TEXT = {
    "data.name": "text",
    "data.batch_size": 4,
    "data.eval_batch_size": 2,
    "data.length": 8,
    "data.options": {"cache_dir": False},
    "epochs": 2,
    "jit_compile": False,
}
TINY_TRELLIS = {
    **TINY_TEXT,
    "model.embedding_dim": 8,
    "model.units": 6,
    "model.output_units": 8,
    "model.levels": 2,
}
