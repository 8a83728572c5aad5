"""Cores of models: causal layers, and Keras layers that do the same without the name."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seq import generation
from keras_seq.export import export_model
from keras_seq.layers import RecurrentStack, SelfAttention, TrellisNet
from keras_seq.layers.plain_layer import causal
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor


class Decayed(keras.layers.Layer):
    """The least that was ever asked of a core: no masks, no kinds of state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, x, initial_state=None, return_state=False):
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(x)[0])

        def step(state, value):
            state = 0.5 * state + value
            return state, state

        by_time = ops.transpose(ops.matmul(x, self.kernel), (1, 0, 2))
        state, outputs = ops.scan(step, initial_state, by_time)
        outputs = ops.transpose(outputs, (1, 0, 2))
        return (outputs, state) if return_state else outputs

    def get_initial_state(self, batch_size):
        return ops.zeros((batch_size, self.units))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


IDS = np.array([[1, 2, 3, 1, 2, 3], [2, 3, 1, 2, 3, 1]], "int32")


def test_a_plain_layer_is_a_core(tmp_path):
    stack = RecurrentStack([Decayed(5), Decayed(4)], dropout=0.2)
    for core in (Decayed(4), stack):
        model = LanguageModel(5, 4, core, output_dropout=0.1)
        assert model.core is core
        model.compile("adam", jit_compile=False)
        model.fit(IDS[:, :-1], IDS[:, 1:], verbose=0)
        state = model.get_initial_state(2, kind="exact")
        first, state = model(IDS[:, :3], initial_state=state, return_state=True)
        rest = model(IDS[:, 3:], initial_state=state)
        whole = model(IDS, masks={}, training=True)
        np.testing.assert_allclose(np.concatenate([first, rest], 1), whole, rtol=1e-4, atol=1e-5)
    drawn = generation.generate_ids(model, IDS, [2, 2], 3, top_k=1)
    assert np.shape(drawn) == (2, 3)
    export_model(model, None, tmp_path)


def test_a_plain_layer_lacks_nothing_of_the_contract():
    layer = causal(Decayed(4))
    assert (layer.auxiliary_levels, layer.auxiliary_scales, layer.receptive_field) == (
        (),
        None,
        None,
    )
    assert layer.get_masks(2) == {} and layer.output_units == 4
    attention = SelfAttention(2)
    assert causal(attention) is attention


@pytest.mark.parametrize(
    "core", [keras.layers.GRU(4), keras.layers.Dense(4), "lstm", None], ids=str
)
def test_what_is_no_causal_layer_is_refused(core):
    for make in (
        lambda: LanguageModel(5, 4, core),
        lambda: SequenceClassifier(core, 3),
        lambda: SequenceRegressor(core),
        lambda: FrameModel(core, 5),
    ):
        with pytest.raises(TypeError, match="`core` must be a `keras_seq.layers.CausalLayer`"):
            make()
    with pytest.raises(TypeError, match="`layers` must be a `keras_seq.layers.CausalLayer`"):
        RecurrentStack([core])


def test_a_core_without_state_says_so():
    class Stateless(Decayed):
        get_initial_state = None  # type: ignore[assignment]

    model = SequenceClassifier(Stateless(4), 3)
    with pytest.raises(TypeError, match="`core` must have `get_initial_state"):
        model.get_initial_state(2)


def test_auxiliary_outputs_are_asked_of_the_core():
    with pytest.raises(ValueError, match="`auxiliary_weight` needs a core with auxiliary outputs"):
        SequenceRegressor(TrellisNet(4, 3, 2), auxiliary_weight=0.1)


@pytest.mark.parametrize("sum_over_time", [False, True])
def test_what_a_frame_model_reports_are_frames(sum_over_time):
    """Losses of frames with their weights, whatever is summed for the objective."""
    model = FrameModel(Decayed(3), notes=4, sum_over_time=sum_over_time)
    frames = np.random.default_rng(0).integers(0, 2, (3, 5, 4)).astype("float32")
    weights = np.ones((3, 5), "float32")
    weights[1, 2:] = 0
    terms = model.loss_terms(frames, frames, sample_weight=weights)
    assert terms.report.shape == (3, 5)
    np.testing.assert_array_equal(terms.metric_weights, weights)
    assert terms.objective.shape == (3, 1 if sum_over_time else 5)
    model.update_metrics(terms)
    mean = np.sum(np.asarray(terms.report) * weights) / weights.sum()
    np.testing.assert_allclose(model.own_metrics()[0].result(), mean, rtol=1e-5)


def test_carried_state_is_refused_where_whole_sequences_are_read():
    for cls, options in ((SequenceClassifier, {"classes": 3}), (SequenceRegressor, {})):
        with pytest.raises(ValueError, match="`carry_state` must be left out"):
            cls(Decayed(4), carry_state=True, **options)
