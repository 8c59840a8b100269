"""Models behind Amazon Bedrock, by its Converse API over plain HTTP: `pip install 'kern-agents[bedrock]'`."""

from kern.errors import MissingExtraError

try:
    import botocore.eventstream  # noqa: F401 - which signs, and reads the event stream
except ImportError as _missing:
    raise MissingExtraError("botocore", "bedrock") from _missing

from kern.models.bedrock.converse import BedrockConverse
from kern.models.bedrock.tools import SystemTool

__all__ = ["BedrockConverse", "SystemTool"]
