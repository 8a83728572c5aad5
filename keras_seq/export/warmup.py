"""Requests with which TensorFlow Serving runs every signature once before it takes traffic."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from keras_seq.export.signatures import Signature

FILE = "tf_serving_warmup_requests"


def write_warmup(folder: Path, name: str, signatures: Mapping[str, Signature]) -> bool:
    """Writes `assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog messages.

    Args:
        folder: the SavedModel.
        name: the model's name.
        signatures: its signatures, with an example each.

    Returns:
        Whether it was written: it needs `tensorflow-serving-api` (extra `serving`).
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        return False
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(extra / FILE)) as writer:
        for key, signature in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = key
            for argument, value in signature.example.items():
                request.inputs[argument].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    return True
