"""The messages of TensorFlow Serving's API against a stand-in for the server, over loopback.

This checks messages, signatures and warm-up requests; it is not the server.
"""

import numpy as np
import pytest
import tensorflow as tf

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving")

from export.stand_in import Models, grpc_service  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from keras_seq.generation import generate  # noqa: E402

LANGUAGE = {"serving_default", "log_probs", "log_probs_of_lengths", "initial_state", "step"}
TEXT = LANGUAGE | {"text", "generate"}
SIGNATURES = {
    "trellis": TEXT,
    "contract": TEXT - {"log_probs_of_lengths"},
    "bfloat16": LANGUAGE,
    "classifier": LANGUAGE,
    "regressor": {"serving_default", "outputs", "outputs_of_lengths", "initial_state", "step"},
}


@pytest.fixture(scope="module")
def server(exported):
    """A stub of the stand-in."""
    models = Models({name: exported[name].folder for name in SIGNATURES})
    with grpc_service(models) as address, grpc.insecure_channel(address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def ask(server, signature: str, model: str = "trellis", **inputs) -> dict:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    # Through bytes, as on the wire of any client.
    message = predict_pb2.PredictRequest.FromString(message.SerializeToString())
    answer = server.Predict(message, timeout=60)
    return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


@pytest.mark.slow
def test_ids_and_text_over_grpc(server, exported):
    ids = np.array([[1, 2, 3]], "int32")
    got = ask(server, "", ids=ids)["log_probs"]
    want = exported["trellis"].model(ids, training=False).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    answer = ask(server, "text", text=[b"ten", b"\xff"])
    assert answer["tokens"].shape == (2, 10)


@pytest.mark.slow
def test_generate_over_grpc(server, exported):
    entry = exported["trellis"]
    texts = [b"ten", b"", b"\xff\x00"]
    options = {"length": np.int32(9), "temperature": np.float32(0.9), "top_k": np.int32(4)}
    answer = ask(server, "generate", text=texts, seed=np.int32(5), **options)
    for row, text in enumerate(texts):
        pieces = generate(entry.model, entry.vocabulary, text, 9, 0.9, 4, seed=5 + row)
        assert answer["text"][row].decode() == "".join(pieces)
    again = ask(server, "generate", text=texts, seed=np.array([5, 6, 7], "int32"), **options)
    np.testing.assert_array_equal(again["ids"], answer["ids"])


@pytest.mark.parametrize("name", ["trellis", "contract"])
@pytest.mark.slow
def test_a_stream_over_grpc(server, exported, name):
    ids = np.array([[1, 2, 3, 4, 5, 6], [6, 0, 4, 4, 2, 1]], "int32")
    state = ask(server, "initial_state", name, batch_size=np.int32(2))
    answers = []
    for position in range(ids.shape[1]):
        answer = ask(server, "step", name, ids=ids[:, position : position + 1], **state)
        answers.append(answer.pop("log_probs"))
        state = answer
    want = exported[name].model(ids, training=False).numpy()
    np.testing.assert_allclose(np.concatenate(answers, 1), want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_what_is_wrong_is_told(server):
    for code, message, signature, name, value in (
        ("INVALID_ARGUMENT", "`ids` must be from 0 to 9", "log_probs", "ids", [[99]]),
        ("INVALID_ARGUMENT", "`batch_size` must be", "initial_state", "batch_size", np.int32(0)),
        ("INVALID_ARGUMENT", "inputs are", "step", "ids", [[1]]),
        ("NOT_FOUND", "nothing", "nothing", "ids", [[1]]),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(server, signature, "trellis", **{name: value})
        assert caught.value.code() == grpc.StatusCode[code]
        assert message in caught.value.details()


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.slow
def test_warmup_requests_are_answered(server, exported, name):
    path = exported[name].folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    requests = [record.predict_log.request for record in records]
    assert {request.model_spec.signature_name for request in requests} == SIGNATURES[name]
    for request in requests:
        assert request.model_spec.name == name
        outputs = server.Predict(request, timeout=60).outputs
        assert outputs
        for value in outputs.values():
            array = tf.make_ndarray(value)
            assert array.dtype == object or np.isfinite(array).all()
