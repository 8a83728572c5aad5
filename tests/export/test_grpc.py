"""The messages of TensorFlow Serving's API against a stand-in for the server, over loopback.

The stand-in answers Predict calls from `tf.saved_model.load`. It checks messages, signatures and
warm-up requests; it is not the server.
"""

from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving")

from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)


class StandIn(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict calls of one model."""

    def __init__(self, folder):
        self._model = tf.saved_model.load(str(folder))

    def Predict(self, request, context):
        signature = self._model.signatures[request.model_spec.signature_name or "serving_default"]
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in signature(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture(scope="module")
def server(exported):
    """A channel to the stand-in."""
    serving = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    stand_in = StandIn(exported["trellis"].folder)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(stand_in, serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    serving.stop(None)


def request(signature: str, **inputs):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "trellis"
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


def test_ids_and_text_over_grpc(server, exported):
    ids = np.array([[1, 2, 3]], "int32")
    answer = server.Predict(request("", ids=ids), timeout=60)
    got = tf.make_ndarray(answer.outputs["log_probs"])
    want = exported["trellis"].model(ids, training=False).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    answer = server.Predict(request("text", text=[b"ten", b"\xff"]), timeout=60)
    assert tf.make_ndarray(answer.outputs["tokens"]).shape == (2, 10)


def test_warmup_requests_are_answered(server, exported):
    path = exported["trellis"].folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    warmed = {record.predict_log.request.model_spec.signature_name for record in records}
    assert warmed == {"serving_default", "log_probs", "text", "generate", "initial_state", "step"}
    for record in records:
        assert server.Predict(record.predict_log.request, timeout=60).outputs
