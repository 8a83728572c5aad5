"""Looking into models: what they attend to, what they cost, what they are made of.

`analyze` makes the numbers and pictures of Mehta et al. (2018), section 4.3, of a trained language
model; `cost` counts what a model of a recipe costs, `architecture` and `draw_architecture` show its
blocks.
"""

from keras_seq.analysis.architecture import Architecture, Block, architecture
from keras_seq.analysis.cost import Cost, cost, measure_step
from keras_seq.analysis.diagram import draw_architecture
from keras_seq.analysis.embeddings import (
    count_tokens,
    read_tags,
    variance,
    variance_by_band,
    variance_by_tag,
    word_vectors,
)
from keras_seq.analysis.entropy import Predictions, entropy_histogram, predict_entropies
from keras_seq.analysis.report import analyze
from keras_seq.analysis.saliency import Saliency, gradient_coverage, saliency

__all__ = [
    "Architecture",
    "Block",
    "Cost",
    "Predictions",
    "Saliency",
    "analyze",
    "architecture",
    "cost",
    "count_tokens",
    "draw_architecture",
    "entropy_histogram",
    "gradient_coverage",
    "measure_step",
    "predict_entropies",
    "read_tags",
    "saliency",
    "variance",
    "variance_by_band",
    "variance_by_tag",
    "word_vectors",
]
