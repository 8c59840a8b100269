"""AWS credentials, the region, and the signature of a request.

botocore finds the credentials and signs. Both block: its credential chain reads files, sends requests and
runs commands.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from kern._secrets import Masked
from kern.errors import MissingKeyError, UsageError
from kern.models._transport import Post

SERVICE = "bedrock"
"""The name of the service in signatures of requests to the host bedrock-runtime."""

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


class AwsSession(Protocol):
    """The part of a session of botocore or boto3 that Kern uses."""

    def get_credentials(self) -> Any:
        """botocore's credentials, which renew themselves; None if there are none."""
        ...


class Access:
    """Finds the credentials and the region of a model.

    Args:
        region: The region that the application passed.
        keys: The access key id, the secret access key and the session token that the application passed.
        session: The session that the application passed.
    """

    def __init__(
        self, region: str | None, keys: tuple[str | None, str | None, str | None], session: AwsSession | None
    ) -> None:
        key_id, secret, token = keys
        if (key_id is None) is not (secret is None) or (token is not None and key_id is None):
            raise UsageError(
                "aws_access_key_id and aws_secret_access_key must be passed together, and "
                "aws_session_token only with both"
            )
        if key_id is not None and session is not None:
            raise UsageError("BedrockConverse takes either AWS keys or an aws_session: remove one of them")
        self._region = region
        self._keys = None
        if key_id is not None and secret is not None:
            self._keys = (Masked(key_id), Masked(secret), None if token is None else Masked(token))
        self._session = session
        self._found = session
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Access:
        """A copy uses the same session, since a session caches credentials and renews them."""
        return self

    @property
    def is_given(self) -> bool:
        """Whether the application passed keys or a session."""
        return self._keys is not None or self._session is not None

    def known_region(self) -> str | None:
        """The region, if it is known without reading a file; else None."""
        if self._region is not None or self._session is not None:
            return self._region
        return next(
            (region for name in REGION_VARIABLES if (region := os.environ.get(name, "").strip())), None
        )

    def region(self) -> str | None:
        """The region; None if it is set nowhere. Blocking.

        Raises:
            MissingKeyError: AWS's configuration files cannot be read.
        """
        with _explained():
            return self.known_region() or _region_of(self._found_session())

    def credentials(self) -> ReadOnlyCredentials | None:
        """The credentials that are valid now; None if there are none. Blocking.

        Raises:
            MissingKeyError: A source of credentials is configured, but it failed.
        """
        if self._keys is not None:
            return ReadOnlyCredentials(*self._keys)
        with _explained():
            session = self._found_session()
            with self._lock:  # so that the session searches for credentials once, not in several threads
                found = session.get_credentials()
            return _frozen(found)

    def _found_session(self) -> Any:
        with self._lock:
            if self._found is None:
                self._found = Session()
            return self._found


@contextmanager
def _explained() -> Iterator[None]:
    """Convert botocore's errors into Kern's, without their frames, which hold keys."""
    try:
        yield
    except (BotoCoreError, OSError, ValueError) as error:
        raise MissingKeyError(f"AWS credentials cannot be loaded: {type(error).__name__}: {error}") from None


def signed(post: Post, credentials: ReadOnlyCredentials, region: str) -> Post:
    """The request with a signature (version 4), which is valid for some minutes. The signature is a secret.

    This does not call `SigV4Auth.add_auth`, which logs what it signs.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    new = {"x-amz-date": now}
    if credentials.token:
        new["x-amz-security-token"] = Masked(credentials.token)
    signer = SigV4Auth(credentials, SERVICE, region)
    asked = AWSRequest(
        "POST", str(post.url), {"content-type": post.headers["content-type"], **new}, post.body
    )
    asked.context["timestamp"] = now
    names = signer.signed_headers(signer.headers_to_sign(asked))
    signature = Masked(signer.signature(signer.string_to_sign(asked, signer.canonical_request(asked)), asked))
    new["authorization"] = Masked(
        f"AWS4-HMAC-SHA256 Credential={signer.scope(asked)}, SignedHeaders={names}, Signature={signature}"
    )
    secrets = (signature, *(value for value in credentials[:3] if value))
    return replace(
        post,
        headers={**post.headers, **new},
        origin=replace(post.origin, secrets=(*post.origin.secrets, *map(Masked, secrets))),
    )


def _frozen(credentials: Any) -> ReadOnlyCredentials | None:
    if credentials is None:
        return None
    found = credentials.get_frozen_credentials()
    token = None if found.token is None else Masked(found.token)
    return ReadOnlyCredentials(Masked(found.access_key), Masked(found.secret_key), token)


def _region_of(session: Any) -> str | None:
    region = session.region_name if hasattr(session, "region_name") else session.get_config_variable("region")
    return str(region) if region else None
