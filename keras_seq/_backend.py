"""The calls that differ between Keras' backends."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def densify(gradient):
        """A gradient as a dense tensor; rows that occur twice in a sparse one are added up."""
        return None if gradient is None else tf.convert_to_tensor(gradient)

    def replica_count() -> int:
        """How many replicas run this code together; 1 outside of a strategy."""
        context = tf.distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync

    def replica_id():
        """The number of the current replica, or `None` where there is only one."""
        if replica_count() == 1:
            return None
        return tf.distribute.get_replica_context().replica_id_in_sync_group

    def sum_over_replicas(tensors: list) -> list:
        """The sums of dense tensors over all replicas, on every replica."""
        if replica_count() == 1 or not tensors:
            return tensors
        context = tf.distribute.get_replica_context()
        return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))

else:

    def densify(gradient):
        """The gradient itself: other backends have no sparse gradients."""
        return gradient

    def replica_count() -> int:
        """1: other backends have no replicas that see their own part of a batch."""
        return 1

    def replica_id():
        """`None`: there is only one replica."""
        return None

    def sum_over_replicas(tensors: list) -> list:
        """The tensors themselves."""
        return tensors
