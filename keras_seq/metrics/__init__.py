"""Metrics that Keras lacks."""

from keras_seq.metrics.perplexity import BitsPerCharacter as BitsPerCharacter
from keras_seq.metrics.perplexity import NegativeLogLikelihood as NegativeLogLikelihood
from keras_seq.metrics.perplexity import Perplexity as Perplexity
from keras_seq.metrics.token_count import TokenCount as TokenCount

__all__ = ["BitsPerCharacter", "NegativeLogLikelihood", "Perplexity", "TokenCount"]
