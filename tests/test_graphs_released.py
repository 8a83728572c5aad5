"""Graphs with custom gradients go when nothing but TensorFlow's list of gradients holds them."""

import gc
import weakref

import tensorflow as tf

from keras_seq.gradients import graphs_released


def graph_of_a_gradient():
    """A weak reference to a graph with a custom gradient; nothing holds it but the gradient."""

    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda upstream: 3.0 * upstream

    @tf.function
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = double(x)
        return tape.gradient(y, x)

    assert float(slope(tf.constant(1.0))) == 3.0
    return weakref.ref(slope.get_concrete_function(tf.constant(1.0)).graph)


def test_graphs_go():
    with graphs_released():
        inside = graph_of_a_gradient()
    gc.collect()
    assert inside() is None


def test_graphs_of_before_stay():
    before = graph_of_a_gradient()
    with graphs_released():
        pass
    gc.collect()
    assert before() is not None


def test_they_go_after_an_error_too():
    inside = []
    try:
        with graphs_released():
            inside.append(graph_of_a_gradient())
            raise KeyError
    except KeyError:
        pass
    gc.collect()
    assert inside[0]() is None
