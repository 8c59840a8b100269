"""The mode "tasks": the leader keeps a list of tasks in the session state and works until all are done.

The list is `session_state["team_tasks"][team_id]`. It outlives the run, and everything that shares the
session state can read it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kern.errors import InvalidStateError, ToolError
from kern.messages import Message
from kern.models.base import ToolDefinition
from kern.runtime.active_runs import active_runs
from kern.runtime.out import Answer, RetryAnswer
from kern.runtime.outcome import CallSite, ToolOutcome, arguments_of
from kern.runtime.run_tree import Run
from kern.runtime.sink import AnswerSink, AsideSink, RunSink
from kern.state.call_state import CallState
from kern.state.shared_state import Author
from kern.state.transaction_block import TransactionBlock
from kern.team.delegation import TeamRoster
from kern.tools.result import prompt_text

KEY = "team_tasks"
OPEN, RUNNING, DONE, FAILED = _STATUSES = "open", "running", "completed", "failed"

T = TypeVar("T")
Task = dict[str, Any]
Act = Callable[["TaskList", Run, CallSite, dict[str, Any]], Awaitable[str | ToolOutcome]]


@dataclass(slots=True, frozen=True)
class TaskList:
    """The task list of one team, and what its leader can do with it.

    Args:
        team_id: The team; the key of the list in the state.
        team: The members, and how a task reaches one.
        max_iterations: How often the leader is sent back to tasks that are still open.
    """

    team_id: str
    team: TeamRoster
    max_iterations: int

    def tools(self) -> dict[str, TaskTool]:
        """The leader's tools, by name."""
        return {name: TaskTool(self, name, *rest) for name, rest in _TOOLS.items()}

    async def review(self, run: Run, message: Message) -> Answer | RetryAnswer:
        """Accept the leader's answer if no task is open; otherwise send the leader back to the open tasks."""
        left = self._left(run)
        if left:
            return RetryAnswer(f"{_SENT_BACK} {_shown(left)}")
        return Answer(message.content or "")

    def sink(self, run: Run) -> RunSink:
        """Where the leader's text goes: while tasks are open, it is not streamed as the answer."""
        return (AsideSink if self._left(run) else AnswerSink)(run.out)

    def _left(self, run: Run) -> list[Task]:
        """The open tasks that the leader is sent back to; none once `max_iterations` is reached."""
        sent_back = sum(m.role == "user" and (m.content or "").startswith(_SENT_BACK) for m in run.messages)
        if sent_back >= self.max_iterations:
            return []
        return [task for task in self.read(run) if task["status"] in (OPEN, RUNNING)]

    def read(self, run: Run) -> list[Task]:
        """The list as it was last committed; empty if the state has something else in its place."""
        lists = run.tree.state().get(KEY)
        found = lists.get(self.team_id) if isinstance(lists, dict) else None
        return _tasks_in(found, run) if isinstance(found, list) else []

    def _list(self, state: dict[str, Any]) -> list[Any]:
        """The list inside a state; created if it is missing.

        Raises:
            InvalidStateError: The state has something else in its place.
        """
        lists = state.setdefault(KEY, {})
        tasks = lists.setdefault(self.team_id, []) if isinstance(lists, dict) else None
        if not isinstance(tasks, list):
            raise InvalidStateError(
                "the team keeps its task list under this key, but the session state holds something else "
                "there: remove it, or use another key for it",
                path=f"/{KEY}" if tasks is None else f"/{KEY}/{self.team_id}",
            )
        return tasks

    async def edit(
        self, run: Run, site: CallSite, change: Callable[[list[Task]], T], *, whole: bool = True
    ) -> T:
        """Change the tasks in a transaction of their own.

        Args:
            change: Edits the tasks in place; a task that it appends is added to the list.
            whole: The tool call does nothing else.
        """
        author = _author(run, site)
        call = CallState(run.tree.shared_state, author, session=run.tree.session.key, owner=run.tree)
        if whole and run.tree.steps is not None:
            run.tree.steps.watch((run.run_id, site.call.id), lambda: True)
        async with TransactionBlock(call) as state:
            stored = self._list(state)
            tasks = _tasks_in(stored, run)
            known = len(tasks)
            result = change(tasks)
            stored += tasks[known:]
            return result

    async def create(self, run: Run, site: CallSite, given: dict[str, Any]) -> str:
        """`create_task`."""

        def change(tasks: list[Task]) -> Task:
            known = _by_id(tasks)
            for dependency in given.get("depends_on", ()):
                _find(known, dependency)
            task = {
                "id": max((task["id"] for task in tasks), default=0) + 1,
                "title": given["title"],
                "description": given.get("description", ""),
                "depends_on": list(given.get("depends_on", ())),
                "assignee": self._member(given.get("member_id")),
                "status": OPEN,
            }
            tasks.append(task)
            return task

        return _shown([await self.edit(run, site, change)])

    async def assign(self, run: Run, site: CallSite, given: dict[str, Any]) -> str:
        """`assign_task`."""

        def change(tasks: list[Task]) -> Task:
            task = _find(_by_id(tasks), given["task_id"])
            task["assignee"] = self._member(given["member_id"])
            return task

        return _shown([await self.edit(run, site, change)])

    async def complete(self, run: Run, site: CallSite, given: dict[str, Any]) -> str:
        """`complete_task`: the leader did the task itself, or it is no longer needed."""

        def change(tasks: list[Task]) -> Task:
            task = _find(_by_id(tasks), given["task_id"])
            task.update(status=DONE, result=given["result"])
            return task

        return _shown([await self.edit(run, site, change)])

    async def show(self, run: Run, site: CallSite, given: dict[str, Any]) -> str:
        """`list_tasks`."""
        return _shown(self.read(run))

    async def execute(self, run: Run, site: CallSite, given: dict[str, Any]) -> ToolOutcome:
        """`execute_tasks`: the members work on them at the same time."""
        execution = site.execution
        ids: list[int] = list(dict.fromkeys(given["task_ids"]))
        if execution.child_run_ids:  # after a pause
            children = [child for child in run.children if child.run_id in execution.child_run_ids]
        else:
            tasks = await self._begun(run, site, ids)
            children, everything = [], _by_id(self.read(run))
            for task in tasks:
                spec = self.team.specs[task["assignee"]]
                place = f"{site.call.id}/{task['id']}"
                children.append(await self.team.begin(run, spec, _wording(task, everything), place=place))
            execution.child_run_ids = [child.run_id for child in children]
        outcomes = await self.team.drive_all(run, children)
        if any(outcome.pending for outcome in outcomes):
            return ToolOutcome("", pending=True)
        done = await self.edit(run, site, lambda tasks: _finish(tasks, ids, outcomes), whole=False)
        media = [item for outcome in outcomes for item in outcome.media]
        return ToolOutcome(_shown(done), media=media, media_in_text=True)

    async def _begun(self, run: Run, site: CallSite, ids: list[int]) -> list[Task]:
        """Mark the tasks of an `execute_tasks` as running, unless an earlier attempt of this run did so."""
        steps = run.tree.steps
        if steps is not None and steps.line.made(_author(run, site)):
            known = _by_id(self.read(run))
            return [_find(known, task_id) for task_id in ids]
        if steps is not None:
            await steps.caught_up()
        return await self.edit(run, site, lambda tasks: self._start(tasks, ids, run), whole=False)

    def _start(self, tasks: list[Task], ids: list[int], run: Run) -> list[Task]:
        known = _by_id(tasks)
        chosen = [_find(known, task_id) for task_id in ids]
        for task in chosen:
            waits_for = [i for i in task["depends_on"] if _find(known, i)["status"] != DONE]
            if waits_for:
                raise ToolError(f"task {task['id']} depends on {waits_for}; execute those first")
            if task["status"] not in (OPEN, FAILED):
                raise ToolError(
                    f"task {task['id']} is {task['status']}; only open and failed tasks are executed"
                )
            if task["assignee"] is None:
                raise ToolError(f"task {task['id']} is not assigned to a member; use assign_task")
            task["assignee"] = self._member(task["assignee"])
        for task in chosen:
            task.update(status=RUNNING, run_id=run.tree.request.run_id)
        return chosen

    def _member(self, member_id: str | None) -> str | None:
        if member_id is None:
            return None
        found = self.team.find(member_id)
        if found is None:
            raise ToolError(self.team.unknown(member_id).content)
        return found


class TaskTool:
    """One of the leader's tools for its task list."""

    __slots__ = ("_act", "_tasks", "definition")

    def __init__(
        self, tasks: TaskList, name: str, act: Act, description: str, properties: Mapping[str, Any]
    ) -> None:
        self._tasks = tasks
        self._act = act
        required = [key for key, schema in properties.items() if not schema.get("optional")]
        shown = {key: {k: v for k, v in s.items() if k != "optional"} for key, s in properties.items()}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": shown,
            "required": required,
            "additionalProperties": False,
        }
        self.definition: ToolDefinition = ToolDefinition(name, description, schema)

    @property
    def drives_runs(self) -> bool:
        """Whether the tool runs members; only `execute_tasks` does."""
        return self._act is TaskList.execute

    @property
    def team(self) -> TeamRoster:
        """The members that tasks can be assigned to."""
        return self._tasks.team

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Check the arguments and carry the tool out."""
        given = arguments_of(site.call) or {}
        _check(given, self.definition)
        result = await self._act(self._tasks, run, site, given)
        return result if isinstance(result, ToolOutcome) else ToolOutcome(result)


_ID = {"type": "integer", "description": "The task's id."}
_IDS = {"type": "array", "items": {"type": "integer"}}
_MEMBER = {"type": "string", "description": "The id of the member that is to do it."}
_TOOLS: dict[str, tuple[Act, str, dict[str, Any]]] = {
    "create_task": (
        TaskList.create,
        "Add a task to the list.",
        {
            "title": {"type": "string", "description": "What is to be done, in a few words."},
            "description": {
                "type": "string",
                "description": "All that whoever does it has to know.",
                "optional": True,
            },
            "depends_on": {**_IDS, "description": "Ids of tasks that come first.", "optional": True},
            "member_id": {**_MEMBER, "optional": True},
        },
    ),
    "assign_task": (TaskList.assign, "Give a task to a member.", {"task_id": _ID, "member_id": _MEMBER}),
    "execute_tasks": (
        TaskList.execute,
        "Have the assigned members do these tasks, at the same time, and get their results.",
        {"task_ids": {**_IDS, "minItems": 1, "description": "Tasks whose dependencies are completed."}},
    ),
    "complete_task": (
        TaskList.complete,
        "Mark a task as completed that you have done yourself.",
        {"task_id": _ID, "result": {"type": "string", "description": "What came out."}},
    ),
    "list_tasks": (TaskList.show, "Look at the list.", {}),
}
TASK_TOOLS = tuple(_TOOLS)
"""The names of the leader's tools."""

_SENT_BACK = "There are tasks that are not completed. Work on them, or complete those that are not needed:"
_TYPES: dict[str, type] = {"string": str, "integer": int, "array": list}


def _check(given: dict[str, Any], definition: ToolDefinition) -> None:
    """Check arguments against the tool's flat schema.

    Raises:
        ToolError: One is missing, unknown or of the wrong type.
    """
    schema: dict[str, Any] = definition.parameters
    for name in schema["required"]:
        if name not in given:
            raise ToolError(
                f"{definition.name}: {name} is missing; it takes {', '.join(schema['properties'])}"
            )
    for name, value in given.items():
        known = schema["properties"].get(name)
        if known is None or isinstance(value, bool) or not isinstance(value, _TYPES[known["type"]]):
            raise ToolError(f"{definition.name}: {name}={value!r} is not valid")
        items: Any = value if known["type"] == "array" else ()
        if not all(map(_is_id, items)):
            raise ToolError(f"{definition.name}: {name} must be a list of task ids (whole numbers)")


def _tasks_in(stored: list[Any], run: Run) -> list[Task]:
    """The tasks of a stored list. A task that is running for a run that has ended is open again.

    Anybody can write to the session state, the model included. An entry that is not a task is ignored and
    left where it is; fields that a task lacks get their defaults.
    """
    tasks: list[Task] = [entry for entry in stored if _is_task(entry)]
    for task in tasks:
        for key, fits, default in _FIELDS:
            if not fits(task.get(key)):
                task[key] = default()
        by = str(task.get("run_id"))
        if task["status"] == RUNNING and by != run.tree.request.run_id:
            task["status"] = RUNNING if active_runs.drives(run.tree.request.db, by) else OPEN
    return tasks


def _is_task(entry: Any) -> bool:
    return isinstance(entry, dict) and _is_id(entry.get("id")) and isinstance(entry.get("title"), str)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FIELDS: tuple[tuple[str, Callable[[Any], bool], Callable[[], Any]], ...] = (
    ("description", lambda value: isinstance(value, str), str),
    ("depends_on", lambda value: isinstance(value, list) and all(map(_is_id, value)), list),
    ("assignee", lambda value: isinstance(value, str | None), lambda: None),
    ("status", lambda value: isinstance(value, str) and value in _STATUSES, lambda: OPEN),
)
"""The fields of a task beside its id and title: the name, whether a value is valid, and the default."""


def _author(run: Run, site: CallSite) -> Author:
    return Author(run.run_id, run.source.path, site.call.name, site.call.id)


def _by_id(tasks: list[Task]) -> dict[int, Task]:
    """The tasks by id, in their order; of several with the same id the first."""
    known: dict[int, Task] = {}
    for task in tasks:
        known.setdefault(task["id"], task)
    return known


def _find(known: Mapping[int, Task], task_id: int) -> Task:
    if task_id not in known:
        raise ToolError(f"there is no task {task_id}; the tasks are {list(known)}")
    return known[task_id]


def _finish(tasks: list[Task], ids: list[int], outcomes: list[ToolOutcome]) -> list[Task]:
    """Note the outcomes. A task that was removed meanwhile is not put back; the leader gets its result."""
    known, done = _by_id(tasks), []
    for task_id, outcome in zip(ids, outcomes, strict=True):
        task = known.get(task_id, {"id": task_id, "removed": True})
        task.update(status=FAILED if outcome.error else DONE, result=outcome.content)
        done.append(task)
    return done


def _wording(task: Task, known: Mapping[int, Task]) -> str:
    """The task as its member reads it, preceded by the results of the tasks that it depends on."""
    results = [
        f"Result of task {other['id']} ({other['title']}):\n{prompt_text(other.get('result'))}"
        for other in (known[task_id] for task_id in sorted(set(task["depends_on"])) if task_id in known)
    ]
    return "\n\n".join([*results, task["title"], *([task["description"]] if task["description"] else [])])


def _shown(tasks: list[Task]) -> str:
    return json.dumps(tasks, ensure_ascii=False)
