"""Who asks Bedrock, and where: AWS credentials, the region, and the signature of a request.

botocore finds the credentials and signs. Both block: its chain reads files, asks the network, runs commands.
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
"""The name under which requests to the host bedrock-runtime are signed."""

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")


class AwsSession(Protocol):
    """What Kern needs of a session of botocore, or of boto3."""

    def get_credentials(self) -> Any:
        """botocore's credentials, which renew themselves; None if there are none."""
        ...


class Access:
    """The credentials and the region of a model, found once.

    Args:
        region: As it was given.
        keys: The id of the access key, the secret one, and the token of a session; as they were given.
        session: The application's own session.
    """

    def __init__(
        self, region: str | None, keys: tuple[str | None, str | None, str | None], session: AwsSession | None
    ) -> None:
        key_id, secret, token = keys
        if (key_id is None) is not (secret is None) or (token is not None and key_id is None):
            raise UsageError(
                "aws_access_key_id and aws_secret_access_key go together, and aws_session_token with them"
            )
        if key_id is not None and session is not None:
            raise UsageError("BedrockConverse takes AWS keys or an aws_session, not both")
        self._region = region
        self._keys = None
        if key_id is not None and secret is not None:
            self._keys = (Masked(key_id), Masked(secret), None if token is None else Masked(token))
        self._session = session
        self._found = session
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Access:
        """The copy uses the same session, which is a connection to whatever gives the credentials."""
        return self

    @property
    def is_given(self) -> bool:
        """The application has said who asks."""
        return self._keys is not None or self._session is not None

    def known_region(self) -> str | None:
        """The region, as far as no file has to be read for it."""
        if self._region is not None or self._session is not None:
            return self._region
        return next(
            (region for name in REGION_VARIABLES if (region := os.environ.get(name, "").strip())), None
        )

    def region(self) -> str | None:
        """The region; None if nothing tells it. Blocking.

        Raises:
            MissingKeyError: The files of AWS cannot be read.
        """
        with _explained():
            return self.known_region() or _region_of(self._found_session())

    def credentials(self) -> ReadOnlyCredentials | None:
        """The credentials that are valid now; None if there are none. Blocking.

        Raises:
            MissingKeyError: Where they should come from, they cannot be had.
        """
        if self._keys is not None:
            return ReadOnlyCredentials(*self._keys)
        with _explained():
            session = self._found_session()
            with self._lock:  # a session looks for its credentials only once
                found = session.get_credentials()
            return _frozen(found)

    def _found_session(self) -> Any:
        with self._lock:
            if self._found is None:
                self._found = Session()
            return self._found


@contextmanager
def _explained() -> Iterator[None]:
    """botocore's errors as one of ours, without their frames, which hold keys."""
    try:
        yield
    except (BotoCoreError, OSError, ValueError) as error:
        raise MissingKeyError(f"AWS credentials cannot be had: {type(error).__name__}: {error}") from None


def signed(post: Post, credentials: ReadOnlyCredentials, region: str) -> Post:
    """The request with a signature (version 4) that holds for some minutes, and which no text may show.

    Not by `SigV4Auth.add_auth`, which logs what it signs.
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
