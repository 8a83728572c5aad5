"""What a model costs: operations a token, memory of a training step, how far back it sees."""

import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_seq._tasks import FRAME_MODEL, SEQUENCE_REGRESSOR, TASKS
from keras_seq.analysis.graph_cost import bytes_kept, count_flops
from keras_seq.layers.plain_layer import causal
from keras_seq.models.size import count_parameters
from keras_seq.training import building
from keras_seq.zoo import Recipe

# Steps of the sequences that a pipeline makes by itself.
_STEPS = {"seq_mnist": 784, "perm_mnist": 784, "seq_cifar10": 1024}
_FREE = 100  # steps that are assumed where a data set has none of its own
UNBOUNDED = "unbounded"


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: trainable parameters.
        batch_size: sequences of the batch that was counted, the recipe's.
        steps: their time steps.
        flops_per_token: floating-point operations of matrix products and convolutions in a forward
            pass of the batch, divided by its time steps; an upper bound for deep equilibria.
        solver_steps: the most steps of a deep equilibrium's solver; `None` without one.
        flops_per_solver_step: what each of them costs a token.
        weight_bytes: all weights.
        optimizer_bytes: what the optimizer keeps beside the weights, step counts included.
        activation_bytes: estimate of what a training step keeps for the backward pass; `None` if
            it was not asked for.
        receptive_field: input steps that an output depends on, its own included, or `"unbounded"`.
    """

    parameters: int
    batch_size: int
    steps: int
    flops_per_token: int
    solver_steps: int | None
    flops_per_solver_step: int | None
    weight_bytes: int
    optimizer_bytes: int
    activation_bytes: int | None
    receptive_field: int | str

    @property
    def step_bytes(self) -> int | None:
        """Memory of a training step: weights, their gradients, optimizer and activations."""
        if self.activation_bytes is None:
            return None
        return 2 * self.weight_bytes + self.optimizer_bytes + self.activation_bytes


def cost(
    recipe: Recipe | str,
    batch_size: int | None = None,
    steps: int | None = None,
    memory: bool = True,
) -> Cost:
    """Counts what a recipe's model costs, in a graph that is never run.

    No weight is made and nothing is computed, so the largest models of the zoo take seconds. A
    product of (m, k) and (k, n) counts 2mkn operations. Element-wise functions, normalisations,
    softmaxes and look-ups are not counted. What is done once a batch, such as projecting the
    positions of an attention, is shared by the tokens of the batch.

    The memory is an estimate: what the backward pass reads of the forward pass's results is
    taken to be kept, and nothing else. Workspaces and results that live for a moment come on top.

    Args:
        recipe: a recipe or the name of one.
        batch_size: sequences of the batch; the recipe's if not given.
        steps: time steps; by default those of the recipe's data, or 100 where sequences differ in
            length.
        memory: whether to estimate the activations too, which takes longer.

    Raises:
        ValueError: for a batch or a length that is not positive.

    Example:

    >>> found = keras_seq.analysis.cost("lstm_ptb_word_single", memory=False)
    >>> found.receptive_field
    'unbounded'
    """
    recipe = building.as_recipe(recipe)
    batch_size = recipe.data.batch_size if batch_size is None else batch_size
    steps = steps_of(recipe) if steps is None else steps
    if batch_size < 1 or steps < 1:
        raise ValueError(
            "`batch_size` and `steps` must be positive. Received: "
            f"batch_size={batch_size}, steps={steps}."
        )
    with tf.Graph().as_default() as graph:
        model: Any = building.build_model(recipe)
        spec = model.input_spec_for_export()
        first = len(graph.get_operations())
        x = tf.zeros((batch_size, steps, *spec.shape[2:]), spec.dtype)
        model(x, training=False)
        flops = count_flops(graph.get_operations()[first:])
        building.compile_model(model, recipe)
        kept = _activations(model, x.shape, x.dtype, recipe) if memory else None
        tokens = batch_size * steps
        return Cost(
            parameters=count_parameters(model),
            batch_size=batch_size,
            steps=steps,
            flops_per_token=round(flops.total / tokens),
            solver_steps=flops.trips if flops.early else None,
            flops_per_solver_step=round(flops.trip / tokens) if flops.early else None,
            weight_bytes=sum(_bytes(weight) for weight in model.trainable_variables),
            optimizer_bytes=sum(_bytes(variable) for variable in model.optimizer.variables),
            activation_bytes=kept,
            receptive_field=receptive_field(model),
        )


def measure_step(recipe: Recipe | str) -> int:
    """Runs three training steps of zeros in a process of its own and measures their memory.

    Args:
        recipe: a recipe or the name of one.

    Returns:
        Bytes: by how much the process grew at most, from before the model was made. It holds the
        program of the step and the workspaces of the operations, too.

    Raises:
        RuntimeError: if the steps failed, for example for want of memory.
    """
    recipe = building.as_recipe(recipe)
    done = subprocess.run(
        [sys.executable, "-m", "keras_seq.analysis.measured_step"],
        input=recipe.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"The step of {recipe.name} could not be measured: {last}")
    return int(done.stdout.strip().splitlines()[-1])


def steps_of(recipe: Recipe) -> int:
    """Time steps of a recipe's sequences in training, context included."""
    spec = recipe.data
    if spec.length is not None:
        return spec.length + spec.history
    if "delay" in spec.options:
        return spec.options["delay"] + 20
    return _STEPS.get(spec.name, _FREE)


def receptive_field(model: Any) -> int | str:
    """Input steps that an output of a model depends on, its own included, or `"unbounded"`.

    It is the `reach` of the core. Recurrent cores, equilibria and attention without a span see all
    that lies before.
    """
    return causal(model.core).reach or UNBOUNDED


def _activations(model: Any, shape: tuple, dtype: Any, recipe: Recipe) -> int:
    """Bytes that a training step keeps between its two passes."""
    forward: set[str] = set()

    def step():
        x = tf.zeros(shape, dtype)
        with tf.GradientTape() as tape:
            terms = model.loss_terms(x, targets_of(model, x, recipe), training=True)
            loss = tf.reduce_mean(terms.objective)
            for extra in (terms.penalty, *model.losses):
                if extra is not None:
                    loss += tf.cast(extra, loss.dtype)
        forward.update(operation.name for operation in x.graph.get_operations())
        gradients = tape.gradient(loss, model.trainable_variables)
        return [gradient for gradient in gradients if gradient is not None]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on tables whose gradients are made dense
        graph = tf.function(step, autograph=False).get_concrete_function().graph
    return bytes_kept(forward, graph.get_operations())


def targets_of(model: Any, x: Any, recipe: Recipe) -> Any:
    """Targets of the shape that the task has."""
    task = TASKS[recipe.task]
    if task is FRAME_MODEL:
        return tf.zeros(x.shape, tf.float32)
    lead = x.shape[:2] if task.of_text or model.return_sequences else x.shape[:1]
    if task is SEQUENCE_REGRESSOR:
        return tf.zeros((*lead, model.outputs_width), tf.float32)
    return tf.zeros(lead, tf.int32)


def _size(variable: Any) -> int:
    return tf.TensorShape(variable.shape).num_elements()


def _bytes(variable: Any) -> int:
    return _size(variable) * tf.as_dtype(variable.dtype).size
