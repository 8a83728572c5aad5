"""A stand-in for TensorFlow Serving that answers from `tf.saved_model.load`.

It speaks the two protocols by their documentation: Predict calls over gRPC, and `:predict` requests
with JSON over HTTP, by row (`instances`) and by column (`inputs`). It is not the server.
"""

import base64
import json
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import tensorflow as tf

try:
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError:
    grpc = None


class Models:
    """Loaded exports by name."""

    def __init__(self, folders: dict[str, Any]):
        self._loaded = {name: tf.saved_model.load(str(path)) for name, path in folders.items()}

    def signature(self, model: str, signature: str):
        """A signature; a `KeyError` says what there is not."""
        if model not in self._loaded:
            raise KeyError(f"Servable not found for request: Latest({model})")
        found = self._loaded[model].signatures
        if signature not in found:
            raise KeyError(f"Serving signature name: {signature!r} not found in signature def")
        return found[signature]


@contextmanager
def grpc_service(models: Models) -> Iterator[Any]:
    """A stub of the prediction service, over loopback."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            name = request.model_spec.signature_name or "serving_default"
            try:
                signature = models.signature(request.model_spec.name, name)
            except KeyError as error:
                context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
            wanted = signature.structured_input_signature[1]
            if set(inputs) != set(wanted):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"inputs are {sorted(wanted)}")
            try:
                outputs = signature(**inputs)
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    serving = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield f"127.0.0.1:{port}"
    serving.stop(None).wait()


@contextmanager
def rest_service(models: Models) -> Iterator[str]:
    """The address of an HTTP server on loopback, `127.0.0.1:PORT`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            model, verb = self.path.removeprefix("/v1/models/").split(":")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if verb != "predict":
                    raise KeyError(f"Malformed request: POST {self.path}")
                status, answer = 200, predict_json(models, model, body)
            except (KeyError, ValueError, tf.errors.InvalidArgumentError) as error:
                status, answer = 400, {"error": str(error)}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def predict_json(models: Models, model: str, body: dict) -> dict:
    """The answer to a `:predict` request, by the rules of the REST API's page."""
    unknown = set(body) - {"signature_name", "instances", "inputs"}
    if unknown or len(body.keys() & {"instances", "inputs"}) != 1:
        raise ValueError(f"JSON must hold either 'instances' or 'inputs', not {sorted(body)}")
    signature = models.signature(model, body.get("signature_name", "serving_default"))
    wanted = signature.structured_input_signature[1]
    by_row = "instances" in body
    given = body["instances"] if by_row else body["inputs"]
    if by_row:
        rows = [row if _named(row) else {next(iter(wanted)): row} for row in given]
        given = {name: [row[name] for row in rows] for name in rows[0]}
    elif not _named(given):  # the one input may come without its name
        given = {next(iter(wanted)): given}
    if set(given) != set(wanted):
        raise ValueError(f"Missing or unknown inputs: {sorted(set(given) ^ set(wanted))}")
    tensors = {}
    for name, value in given.items():
        array = np.array(_decoded(value), object if wanted[name].dtype == tf.string else None)
        tensors[name] = tf.constant(array, wanted[name].dtype)
        if not wanted[name].shape.is_compatible_with(tensors[name].shape):
            raise ValueError(f"{name} is of shape {tensors[name].shape}, not {wanted[name].shape}")
    outputs = {k: _encoded(v.numpy().tolist()) for k, v in signature(**tensors).items()}
    if by_row:
        size = len(next(iter(outputs.values())))
        rows = [{name: value[i] for name, value in outputs.items()} for i in range(size)]
        return {"predictions": [_alone(row) for row in rows]}
    return {"outputs": _alone(outputs)}


def _named(value) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _alone(outputs: dict):
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def _encoded(value):
    """Strings must be UTF-8, as in the answers of a server."""
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value
