"""What tests of Kern, and of programs that use Kern, are made with: models that are played, and no network.

`ScriptedModel` and `FunctionModel` answer in the process; `ModelServer` is a provider on the loopback
interface, with faults; `no_leaks` checks that nothing is left running. Ports come with conformance suites:
`kern.testing.db.DbConformance` for databases, `kern.testing.model.ModelConformance` for models.
"""

from kern.testing.answers import (
    Answer,
    Fault,
    Reply,
    split_at,
    split_every,
    split_randomly,
    tool_call,
)
from kern.testing.cassette import cassette
from kern.testing.leaks import no_leaks
from kern.testing.models import FunctionModel, ModelAnswer, ScriptedModel
from kern.testing.replaying import fork, record, replay
from kern.testing.request import ReceivedRequest
from kern.testing.server import ModelServer

__all__ = [
    "Answer",
    "Fault",
    "FunctionModel",
    "ModelAnswer",
    "ModelServer",
    "ReceivedRequest",
    "Reply",
    "ScriptedModel",
    "cassette",
    "fork",
    "no_leaks",
    "record",
    "replay",
    "split_at",
    "split_every",
    "split_randomly",
    "tool_call",
]
