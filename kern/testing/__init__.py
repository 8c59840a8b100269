"""Tools for tests of programs that use Kern, and of Kern itself: models that need no network and no key.

`ScriptedModel` and `FunctionModel` answer inside the process. `ModelServer` is a provider on the loopback
interface, which can also fail. `cassette`, `record`, `replay` and `fork` record runs and replay them.
`no_leaks` checks that nothing is left running. Conformance suites test implementations of a port:
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
