"""SavedModel folders for TensorFlow Serving."""

from keras_seq.export.exporter import export_model as export_model

__all__ = ["export_model"]
