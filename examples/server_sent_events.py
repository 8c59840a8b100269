"""A team behind FastAPI: the events of a run as server-sent events.

Needs the extra `server`. Start it with `uvicorn examples.server_sent_events:app`, and ask it:

    curl -N localhost:8000/chats/1/messages -H 'content-type: application/json' -d '{"text": "Milk, please"}'

A client that goes away in the middle cancels its run: the model is asked no further, what the run had done is
committed, and the next message of the chat goes on from there.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse

from kern import Agent, KernError, RunContext, Team, shutdown
from kern.db.sqlite import SqliteDb
from kern.errors import SessionError, SessionOwnershipError, ShutdownError


def add_item(run_context: RunContext, item: str) -> str:
    """Put an item on the shopping list."""
    run_context.session_state["shopping_list"].append(item)
    return f"{item} is on the list"


team = Team(
    name="Shopping Team",
    members=[Agent(name="Grocer", role="Keeps the shopping list", tools=[add_item])],
    session_state={"shopping_list": []},
    db=SqliteDb("tmp/chats.db"),
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """A server that ends drops its requests without waiting: the ends of their runs are stored here."""
    yield
    await shutdown(timeout=5)


app = FastAPI(lifespan=lifespan)


STATUS: dict[type[KernError], int] = {  # the whole list: docs/errors.md
    SessionOwnershipError: 404,
    SessionError: 409,
    ShutdownError: 503,
}


@app.exception_handler(KernError)
async def refused(_: Request, error: Exception) -> JSONResponse:
    """What refuses a run before its first event, as a status. The text is for the log: it names ids."""
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": type(error).__name__}, status)


class Question(BaseModel):
    text: Annotated[str, Field(pattern=r"\S")]


def current_user() -> str:
    """Who asks: your own authentication goes here. A session belongs to its user."""
    return "ann"


@app.post("/chats/{chat}/messages")
async def ask(
    chat: str, question: Question, user: Annotated[str, Depends(current_user)]
) -> EventSourceResponse:
    run = team.arun(question.text, stream=True, stream_events=True, session_id=chat, user_id=user)
    await run.open()  # until here a refusal is answered with its own status: afterwards it is always 200

    async def server_sent() -> AsyncIterator[dict[str, str]]:
        """The events; closed when the client goes away, and with it, by `async with`, the run."""
        try:
            async with run:
                async for event in run:
                    yield {"event": event.event, "id": str(event.seq), "data": event.to_json()}
        except KernError:
            return  # the client has been told: its last event is a TeamRunError

    return EventSourceResponse(server_sent())
