"""What `fit` and `evaluate` look at before they begin: labels that exist, weights of classes."""

from typing import Any

import keras

from keras_seq.models import sample_weights, targets
from keras_seq.models.progress_bar import with_progress_bar
from keras_seq.models.valid_steps import Given, mask_in_arrays, with_arrays


class CheckedData:
    """Looks at arrays before training, and weighs classes as the loss of each model needs it.

    A part of `SequenceModel`. Keras turns `class_weight` into weights by the position of the
    largest target of a sequence where there is a label for each step; here the weight is looked up
    for each label, in the step.
    """

    ignore_class: int | None = None
    vocabulary_size: int | None = None
    mask_zero: bool = False
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
        """Refuses ids and labels in arrays that do not exist, and wrong masks and lengths.

        Raises:
            ValueError: if there are such ids at steps that are not masked, or such labels with a
                weight.
        """
        given = self.parts_of(x)
        mask = mask_in_arrays(given, self.mask_zero)
        if self.id_count is not None and sample_weight is None:
            targets.check_labels("x", given.x, self.id_count, mask)
        if self.label_count is not None:
            counted = sample_weights.in_arrays(sample_weight, mask, y)
            targets.check_labels("y", y, self.label_count, counted, self.ignore_class)

    def parts_of(self, inputs) -> Given:
        """The inputs, with the lengths or the mask that came with them."""
        return Given(inputs)

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
        x = with_arrays(x)
        self.check_arrays(x, y, sample_weight)
        if isinstance(validation_data, tuple | list):
            validation_data = (with_arrays(validation_data[0]), *validation_data[1:])
            self.check_arrays(*validation_data)
        kwargs["callbacks"] = with_progress_bar(kwargs.get("callbacks"), kwargs.get("verbose"))
        model: Any = super()
        return model.fit(
            x, y, sample_weight=sample_weight, validation_data=validation_data, **kwargs
        )

    def evaluate(self, x=None, y=None, *, sample_weight=None, **kwargs):
        x = with_arrays(x)
        self.check_arrays(x, y, sample_weight)
        kwargs["callbacks"] = with_progress_bar(kwargs.get("callbacks"), kwargs.get("verbose"))
        model: Any = super()
        return model.evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        x = with_arrays(x)
        self.check_arrays(x)
        model: Any = super()
        return model.predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        self._weigh_classes(class_weight)
        x = with_arrays(x)
        self.check_arrays(x, y, sample_weight)
        model: Any = super()
        return model.train_on_batch(x, y, sample_weight=sample_weight, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        x = with_arrays(x)
        self.check_arrays(x, y, sample_weight)
        model: Any = super()
        return model.test_on_batch(x, y, sample_weight=sample_weight, **kwargs)

    def predict_on_batch(self, x, **kwargs):
        x = with_arrays(x)
        self.check_arrays(x)
        model: Any = super()
        return model.predict_on_batch(x, **kwargs)

    def scored(self, y, sample_weight, dtype: str, training=None, mask=None):
        """Targets and the weights of their losses.

        Args:
            y: (b, ...) targets; labels as (b,) or (b, t), values with one axis more.
            sample_weight: see `sample_weights.aligned`.
            dtype: the type of the weights.
            training: whether classes are weighed.
            mask: the elements of the loss that count, as its shape; `None` for all.

        Returns:
            The targets, with zeros in place of those that do not count; and the weights, `None` if
            all are one.
        """
        labels = self.label_count is not None
        weights = sample_weights.aligned(sample_weight, y if labels else y[..., 0], dtype)
        factors = [] if mask is None else [keras.ops.cast(mask, dtype)]
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
