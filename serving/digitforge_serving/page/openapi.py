"""The REST API's description, OpenAPI 3.1. The API is TensorFlow Serving's."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "model": {"description": "Name of the model.", "schema": {"type": "string"}, "example": "digits"},
    "version": {
        "description": "Number of the version.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1",
    },
    "label": {"description": "Label of the version.", "schema": {"type": "string"}, "example": "stable"},
}
#: Ways to choose a version: path, end of the operation's id, words of the summary.
_CHOICES: Final = (
    ("/v1/models/{model}", "", "the newest version"),
    ("/v1/models/{model}/versions/{version}", "OfVersion", "a version"),
    ("/v1/models/{model}/labels/{label}", "OfLabel", "the version with a label"),
)
_ERRORS: Final = {
    "400": "The request is not valid, or does not fit the signature.",
    "404": "The model, version or label is not served.",
    "413": "The body is too large.",
    "503": "The server is busy, or it is stopping.",
    "504": "The time limit has passed.",
}
_ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_STATUS: Final = {
    "type": "object",
    "required": ["model_version_status"],
    "properties": {
        "model_version_status": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["version", "state", "status"],
                "properties": {
                    "version": {"type": "string", "pattern": "^[0-9]+$"},
                    "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                    "status": {
                        "type": "object",
                        "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                    },
                },
            },
        }
    },
}
_METADATA: Final = {
    "type": "object",
    "required": ["model_spec", "metadata"],
    "properties": {
        "model_spec": {
            "type": "object",
            "required": ["name", "version"],
            "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
        },
        "metadata": {
            "type": "object",
            "required": ["signature_def"],
            "description": "The signatures with the names, dtypes and shapes of their inputs and outputs.",
        },
    },
}
_REQUEST: Final = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string", "default": "serving_default"},
        "instances": {
            "type": "array",
            "minItems": 1,
            "description": "Row form: one item per row. An item is an object of inputs, or the value of the only "
            "input.",
        },
        "inputs": {"description": "Column form: an object of inputs, or the value of the only input."},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
}
_ANSWER: Final = {
    "type": "object",
    "properties": {
        "predictions": {
            "type": "array",
            "description": "Answer to the row form: one item per row. An item is an object of outputs, or the value of "
            "the only output.",
        },
        "outputs": {
            "description": "Answer to the column form: an object of outputs, or the value of the only output.",
        },
    },
    "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
}
_EXAMPLES: Final = {
    "images": {
        "summary": "The images of two addresses",
        "value": {"signature_name": "serving_default", "inputs": {"labels": [3, 7], "seeds": [0, 1]}},
    },
    "rows": {"summary": "The same in row form", "value": {"instances": [{"labels": 3, "seeds": 0}]}},
    "card": {"summary": "The model card", "value": {"signature_name": "card", "inputs": {"rows": [0]}}},
}


def describe_api(metrics_path: str | None = None) -> dict[str, Any]:
    """Describe the REST API.

    Args:
        metrics_path: URL path of the metrics for Prometheus; None: no metrics.

    Returns:
        An OpenAPI 3.1 document.
    """
    paths: dict[str, Any] = {}
    for path, ending, words in _CHOICES:
        parameters = [
            {"name": name, "in": "path", "required": True, **described}
            for name, described in _PARAMETERS.items()
            if f"{{{name}}}" in path
        ]
        paths[path] = {
            "parameters": parameters,
            "get": _operation(f"getStatus{ending}", f"State of {words}", "Status", "400", "404"),
        }
        paths[f"{path}/metadata"] = {
            "parameters": parameters,
            "get": _operation(f"getMetadata{ending}", f"Signatures of {words}", "Metadata", "400", "404"),
        }
        predict = _operation(f"predict{ending}", f"Compute a signature of {words}", "Answer", *_ERRORS)
        predict["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Request"}, "examples": _EXAMPLES}
            },
        }
        paths[f"{path}:predict"] = {"parameters": parameters, "post": predict}
    paths["/v1/models/{model}"]["get"]["summary"] = "State of all versions"
    if metrics_path is not None:
        page = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
        paths[metrics_path] = {
            "get": {
                "operationId": "getMetrics",
                "summary": "Metrics for Prometheus",
                "responses": {"200": page},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "digitforge",
            "version": version("digitforge"),
            "description": "TensorFlow Serving's REST API: predictions, status and metadata. A tensor is nested lists "
            'of values. Bytes are {"b64": "…"}, base64. NaN and Infinity are accepted.',
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Status": _STATUS,
                "Metadata": _METADATA,
                "Request": _REQUEST,
                "Answer": _ANSWER,
                "Error": _ERROR,
            }
        },
    }


def _operation(identity: str, summary: str, schema: str, *errors: str) -> dict[str, Any]:
    def answer(description: str, schema: str) -> dict[str, Any]:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        return {"description": description, "content": content}

    responses = {"200": answer("OK", schema), **{code: answer(_ERRORS[code], "Error") for code in errors}}
    return {"operationId": identity, "summary": summary, "responses": responses}
