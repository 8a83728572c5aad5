"""Training batches: made here, or by a tf.data service that feeds several trainers."""

import re
from typing import Any, NamedTuple

from keras_seq.pipelines import Data
from keras_seq.training.cluster import Cluster


class DataService:
    """A tf.data service on this machine: a dispatcher, and a worker that makes the batches.

    It may run on a machine of its own, so that trainers do not spend their processor on the
    pipeline, and several trainers may read one job, so that each batch is made once: see the
    arguments `data_service` and `data_service_share` of `train`.

    Args:
        port: port of the dispatcher; 0 for a free one.
        host: the name under which trainers reach this machine.

    Attributes:
        address: what trainers are given, `grpc://host:port`.

    Example:

    ```python
    with keras_seq.training.DataService() as service:
        run = keras_seq.training.train(
            "trellisnet_python_docs", max_steps=10, data_service=service.address
        )
    ```
    """

    def __init__(self, port: int = 0, host: str = "localhost"):
        from tensorflow.data.experimental import service

        self._dispatcher = service.DispatchServer(
            service.DispatcherConfig(port=port, job_gc_timeout_ms=60_000)
        )
        self._port = int(self._dispatcher.target.rpartition(":")[2])
        self._worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=f"localhost:{self._port}", worker_address=f"{host}:%port%"
            )
        )
        self.address = f"grpc://{host}:{self._port}"

    def join(self) -> None:
        """Waits until the service ends."""
        self._dispatcher.join()

    def stop(self) -> None:
        """Ends the service."""
        self._worker._stop()
        self._dispatcher._stop()

    def __enter__(self) -> "DataService":
        return self

    def __exit__(self, *error) -> None:
        self.stop()


class Share(NamedTuple):
    """One trainer's place among those that read the same batches.

    Attributes:
        name: of the job that they share.
        index: the number of this one, from 0.
        count: how many there are.
    """

    name: str
    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Reads `NAME:INDEX/COUNT`.

        Raises:
            ValueError: for something else.
        """
        match = re.fullmatch(r"([\w.-]+):(\d+)/(\d+)", text)
        share = cls(match[1], int(match[2]), int(match[3])) if match else None
        if share is None or not share.index < share.count:
            raise ValueError(
                "`data_service_share` must be NAME:INDEX/COUNT with INDEX from 0 to COUNT - 1, "
                f"for example search:0/4. Received: {text!r}."
            )
        return share


class Source:
    """Where the training batches of a run come from.

    Args:
        data: the data.
        cluster: the processes that train together. They read one job.
        address: of a tf.data service; `None` to make the batches in this process.
        share: of a run that reads the same batches as other ones do.

    Raises:
        ValueError: if the address or the combination does not fit.
    """

    def __init__(
        self, data: Data, cluster: Cluster, address: str | None = None, share: str | None = None
    ):
        if address is None and share is not None:
            raise ValueError("`data_service_share` needs `data_service`, the service's address.")
        if share is not None and cluster.workers > 1:
            raise ValueError(
                "`data_service_share` is for independent runs; the machines of one training read "
                f"one job anyway. Received: data_service_share={share!r}, {cluster.workers} "
                "machines. Leave it out."
            )
        if address is not None and not re.fullmatch(r"(grpc://)?[^/]+:\d+", address):
            raise ValueError(
                "`data_service` must be an address like grpc://host:5050. "
                f"Received: data_service={address!r}."
            )
        if address is not None and not address.startswith("grpc://"):
            address = f"grpc://{address}"
        self.data = data
        self.cluster = cluster
        self.address = address
        self.share = None if share is None else Share.parse(share)
        if address is not None and cluster.workers > 1:
            import secrets

            token = cluster.share(secrets.token_hex(8).encode()).decode()
            self.share = Share(token, cluster.index, cluster.workers)

    def batches(self, epoch: int, skip: int, left: int) -> Any:
        """This process's rows of the batches of an epoch.

        Args:
            epoch: its number, from 0.
            skip: batches that are left out at its start.
            left: batches at most.
        """
        dataset = self.data.epoch(epoch, skip)
        there = self.data.steps_per_epoch - skip
        count = min(left, there)
        if self.address is None:
            dataset = self.cluster.rows(dataset)
            return dataset.take(count) if count < there else dataset
        return self._served(dataset, f"{epoch}-{skip}", count)

    def _served(self, dataset: Any, place: str, count: int) -> Any:
        import tensorflow as tf
        from tensorflow.data.experimental import service

        options: dict[str, Any] = {}
        if self.share is not None:
            # In each round, every consumer gets one element, in the order of their numbers.
            name, index, consumers = self.share
            if self.cluster.workers > 1:
                dataset = self.cluster.rows(dataset, whole=True)
            else:
                dataset = dataset.flat_map(
                    lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(consumers)
                )
            dataset = dataset.repeat()  # such jobs have no end
            options = {"consumer_index": index, "num_consumers": consumers}
            options["job_name"] = f"{name}-{place}"
        served = dataset.apply(
            service.distribute(service.ShardingPolicy.OFF, self.address, **options)
        )
        served = served.take(count)
        served = served.apply(tf.data.experimental.assert_cardinality(count))
        return served.prefetch(tf.data.AUTOTUNE)
