"""What `fit` and `evaluate` look at before they begin: labels that exist, weights of classes."""

from typing import Any

import keras

from keras_seq.models import sample_weights, targets
from keras_seq.models.progress_bar import with_progress_bar


class CheckedData:
    """Looks at arrays before training, and weighs classes as the loss of each model needs it.

    A part of `SequenceModel`. Keras turns `class_weight` into weights by the position of the
    largest target of a sequence where there is a label for each step; here the weight is looked up
    for each label, in the step.
    """

    ignore_class: int | None = None
    vocabulary_size: int | None = None
    _class_weights: tuple[float, ...] | None = None

    @property
    def label_count(self) -> int | None:
        """How many labels targets may hold; `None` where they are no labels."""
        return None

    @property
    def id_count(self) -> int | None:
        """How many ids inputs may hold; `None` where they are no ids."""
        return self.vocabulary_size

    def check_arrays(self, x, y=None, sample_weight=None) -> None:
        """Refuses ids and labels in arrays that do not exist.

        Raises:
            ValueError: if there are such ids, or such labels with a weight.
        """
        if self.id_count is not None and sample_weight is None:
            targets.check_labels("x", x, self.id_count)
        if self.label_count is not None:
            targets.check_labels("y", y, self.label_count, sample_weight, self.ignore_class)

    def fit(
        self,
        x=None,
        y=None,
        *,
        class_weight=None,
        sample_weight=None,
        validation_data=None,
        **kwargs,
    ):
        self._weigh_classes(class_weight)
        self.check_arrays(x, y, sample_weight)
        if isinstance(validation_data, tuple | list):
            self.check_arrays(*validation_data)
        kwargs["callbacks"] = with_progress_bar(kwargs.get("callbacks"), kwargs.get("verbose"))
        model: Any = super()
        return model.fit(
            x, y, sample_weight=sample_weight, validation_data=validation_data, **kwargs
        )

    def evaluate(self, x=None, y=None, *, sample_weight=None, **kwargs):
        self.check_arrays(x, y, sample_weight)
        kwargs["callbacks"] = with_progress_bar(kwargs.get("callbacks"), kwargs.get("verbose"))
        model: Any = super()
        return model.evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        self.check_arrays(x)
        model: Any = super()
        return model.predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        self._weigh_classes(class_weight)
        self.check_arrays(x, y, sample_weight)
        model: Any = super()
        return model.train_on_batch(x, y, sample_weight=sample_weight, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        self.check_arrays(x, y, sample_weight)
        model: Any = super()
        return model.test_on_batch(x, y, sample_weight=sample_weight, **kwargs)

    def scored(self, y, sample_weight, dtype: str, training=None):
        """Targets and the weights of their losses.

        Args:
            y: (b, ...) targets; labels as (b,) or (b, t), values with one axis more.
            sample_weight: see `sample_weights.aligned`.
            dtype: the type of the weights.
            training: whether classes are weighed.

        Returns:
            The targets, with zeros in place of those that do not count; and the weights, `None` if
            all are one.
        """
        labels = self.label_count is not None
        weights = sample_weights.aligned(sample_weight, y if labels else y[..., 0], dtype)
        factors = []
        if self.ignore_class is not None:
            factors.append(keras.ops.cast(y != self.ignore_class, dtype))
        if training and self._class_weights is not None:
            factors.append(sample_weights.class_weights_of(y, self._class_weights, dtype))
        for factor in factors:
            weights = factor if weights is None else weights * factor
        return sample_weights.blank(y, weights), weights

    def _weigh_classes(self, class_weight: dict | None) -> None:
        table = sample_weights.class_weight_table(class_weight, self.label_count)
        if table != self._class_weights:
            self._class_weights = table
            self.train_function = None  # it holds the weights of before
