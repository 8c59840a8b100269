"""The HTTP client for connections to MCP servers, which is passed to the package `mcp`.

It converts a response with an error status to an error message of the protocol that contains the status and
the server's text; the package itself reports the same text for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from kern.tools.mcp.incoming import NO_MESSAGE, Clean, read_message

if TYPE_CHECKING:
    import httpx2

_LONGEST_EXPLANATION = 500
_LONGEST_ERROR_BODY = 64 * 1024
_NO_SESSION = re.compile(
    rb"(?:no valid|invalid|unknown|expired) session|session (?:id )?(?:not found|expired)", re.IGNORECASE
)
SESSION_LOST = token_hex()
"""The data of an error message that says: the request was rejected unread, because its session is lost. It is
random, so that no server can send it."""

_NO_ENDPOINT = "this address accepts no MCP messages; servers with the older SSE transport are not supported"
_HINTS = {
    401: "the server rejects the credentials in the headers, or needs some",
    403: "the credentials in the headers do not permit it",
    404: _NO_ENDPOINT,
    405: _NO_ENDPOINT,
}


def make_client(headers: Mapping[str, str], connect_seconds: float, answers: Answers) -> httpx2.AsyncClient:
    """An HTTP client without cookies, whose responses are always messages of the protocol.

    Args:
        headers: The headers of each request.
        connect_seconds: How long a server may take to accept a connection, or a request.
        answers: Converts the responses.
    """
    import httpx2

    class Client(httpx2.AsyncClient):
        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            response = await super().send(request, **options)
            if request.method != "POST" or response.has_redirect_location:
                return response
            return await answers.read(request, response)

    return Client(
        headers=dict(headers),
        # No read timeout: the call has one of its own.
        timeout=httpx2.Timeout(connect_seconds, read=None),
        # Each call needs a connection; a call that timed out waiting for one would end all of them.
        limits=httpx2.Limits(max_connections=None),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


@dataclass(slots=True, frozen=True)
class Answers:
    """Converts responses that are not messages of the protocol to error messages of the protocol.

    Args:
        longest: The longest message in bytes; None: any length.
        clean: Masks secrets in what the server sent.
    """

    longest: int | None
    clean: Clean = field(repr=False)

    async def read(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """Read and convert the response to a message; an event stream is returned unread."""
        failed = response.status_code >= 400
        if not failed and not response.headers.get("content-type", "").lower().startswith("application/json"):
            return response
        limit = _LONGEST_ERROR_BODY if failed else self.longest
        try:
            body = await _beginning(response, limit)
        finally:
            await response.aclose()
        if body is None and not failed:
            return _error(request, response, f"the answer is longer than {limit:,} bytes (max_answer_bytes)")
        if failed and not _is_message(body):
            return _error(request, response, self._explained(response, body or b""))
        if failed and _is_refused_session(request, response, body or b""):
            said = json.loads(body or b"")["error"].get("message")
            return _error(request, response, self.clean(str(said or "the session is gone")))
        if not failed:
            body = await read_message(body or b"")
            if body is None:
                return _error(request, response, NO_MESSAGE)
        sent = ("content-encoding", "content-length", "transfer-encoding")  # these describe the encoded body
        headers = [item for item in response.headers.multi_items() if item[0].lower() not in sent]
        return type(response)(response.status_code, headers=headers, content=body, request=request)

    def _explained(self, response: httpx2.Response, body: bytes) -> str:
        text = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
        if hint := _HINTS.get(response.status_code):
            text += f": {hint}"
        kind = response.headers.get("content-type", "")
        beginning = body[: 10 * _LONGEST_EXPLANATION].decode(errors="replace").strip()
        said = "" if "html" in kind else self.clean(beginning)  # before it is cut
        return f"{text}. The server says: {said[:_LONGEST_EXPLANATION]}" if said else text


async def _beginning(response: httpx2.Response, limit: int | None) -> bytes | None:
    """The body; None if it is longer than the limit."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if limit is not None and len(body) > limit:
            return None
    return bytes(body)


def _is_message(body: bytes | None) -> bool:
    """Whether an error response contains an error message of the protocol."""
    try:
        message = json.loads(body or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and isinstance(message.get("error"), dict) and "jsonrpc" in message


def _is_refused_session(request: httpx2.Request, response: httpx2.Response, said: bytes) -> bool:
    """Whether the server rejected the message unread because it does not know the session; many send 400."""
    if "mcp-session-id" not in request.headers:
        return False
    return response.status_code == 404 or (response.status_code == 400 and bool(_NO_SESSION.search(said)))


def _error(request: httpx2.Request, response: httpx2.Response, text: str) -> httpx2.Response:
    """The text as an error message of the protocol, with the code that the package uses for this status."""
    from mcp.types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND

    code, data = INTERNAL_ERROR, None
    if _is_refused_session(request, response, text.encode()):
        code, data = INVALID_REQUEST, SESSION_LOST
    elif response.status_code == 404:
        code = METHOD_NOT_FOUND
    try:
        message_id = json.loads(request.content).get("id")
    except (ValueError, AttributeError):
        message_id = None
    error = {"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": text, "data": data}}
    return type(response)(response.status_code, json=error, request=request)
