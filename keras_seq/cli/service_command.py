"""The command `data-service`: makes training batches for other processes."""

import signal
import time
from typing import Annotated

import typer

from keras_seq.cli.output import Output, command, restore_interrupt


@command
def data_service(
    output: Output,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 5050,
    host: Annotated[
        str, typer.Option(help="Name under which the trainers reach this machine.")
    ] = "localhost",
) -> None:
    """Run a tf.data service that makes the batches of `keras-seq train --data-service ADDRESS`.

    It runs until Ctrl-C or SIGTERM. It needs no data: the trainers send it their pipelines. It has
    no password, so let only the trainers' network reach it.
    """
    restore_interrupt()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from keras_seq import training

    with training.DataService(port, host) as service:
        if output.json_wanted:
            output.document({"address": service.address})
        else:
            output.line(f"Serving at {service.address} until Ctrl-C. Give it to each trainer:")
            output.line(f"  keras-seq train MODEL --data-service {service.address}")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            output.line("Stopped.")
