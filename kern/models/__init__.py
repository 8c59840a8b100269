"""Language models: the port `Model`, the providers, and `resolve`, which finds one by its name."""

from kern.models._switch import allow_requests, forbid_requests
from kern.models.base import (
    CommentarySink,
    DeltaSink,
    Model,
    ModelRequest,
    ModelResponse,
    ResponseFormat,
    ToolDefinition,
)
from kern.models.resolve import default_model, resolve

__all__ = [
    "CommentarySink",
    "DeltaSink",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "ResponseFormat",
    "ToolDefinition",
    "allow_requests",
    "default_model",
    "forbid_requests",
    "resolve",
]
