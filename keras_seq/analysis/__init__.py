"""Looking into language models: Mehta et al. (2018), section 4.3.

`analyze` makes all numbers and pictures of a model; the other functions each make one of them.
"""

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
    "Predictions",
    "Saliency",
    "analyze",
    "count_tokens",
    "entropy_histogram",
    "gradient_coverage",
    "predict_entropies",
    "read_tags",
    "saliency",
    "variance",
    "variance_by_band",
    "variance_by_tag",
    "word_vectors",
]
