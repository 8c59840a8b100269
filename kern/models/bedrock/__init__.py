"""Models behind Amazon Bedrock's Converse API, over plain HTTP: `pip install 'kern-agents[bedrock]'`."""

from kern.errors import MissingExtraError

try:
    import botocore.eventstream  # noqa: F401 - botocore signs requests and parses the event stream
except ImportError as _missing:
    raise MissingExtraError("botocore", "bedrock") from _missing

from kern.models.bedrock.converse import BedrockConverse
from kern.models.bedrock.tools import SystemTool

__all__ = ["BedrockConverse", "SystemTool"]
