"""Keys of cached results: what a tool can tell apart has another key, and equal plain data has the same."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import math
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr, RootModel, SecretBytes, SecretStr

from kern import Agent, Toolkit, tool
from kern.testing import ScriptedModel, tool_call
from kern.tools.cache_key import NoKeyError, key_of


class Login(BaseModel):
    user: str = "ann"
    password: SecretStr = SecretStr("")
    tenant: str = Field(default="", exclude=True)
    _seen: list[str] = PrivateAttr(default_factory=list)

    def customers(self) -> str:
        return "some"


class Open(BaseModel, extra="allow"):
    pass


@dataclasses.dataclass
class Client:
    url: str = "u"
    key: str = dataclasses.field(default="", repr=False, compare=False)


class Slotted:
    __slots__ = ("__token",)

    def __init__(self, token: str) -> None:
        self.__token = token

    def customers(self) -> str:
        return self.__token


def itself() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


class Equal:
    """All of them are equal, and yet others."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1


class Colour(enum.Enum):
    red = 1
    blue = 1.5


class Name(str):  # noqa: SLOT000 - it may have attributes
    pass


def look_up(value: Any = None) -> str:
    return "found"


def seen(login: Login, *names: str) -> Login:
    login._seen += names
    return login


def attributed(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def closure_over(value: Any) -> Callable[[], Any]:
    return lambda: value


NOON = datetime.datetime(2026, 1, 2, 12)  # noqa: DTZ001 - without a time zone, on purpose
DIFFERENT: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    (1, "1"),
    (None, "None"),
    ([], {}),
    ([1], (1,)),
    ({1: "a"}, {"1": "a"}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (0.0, -0.0),
    (b"a", "a"),
    (Decimal("1.0"), Decimal("1.00")),
    (NOON, NOON.replace(tzinfo=datetime.UTC)),
    (NOON.date(), str(NOON.date())),
    (Path("a"), "a"),
    (Colour.red, Colour.blue),
    (Colour.red, 1),
    ("a", Name("a")),
    (attributed(Name("a"), of="x"), attributed(Name("a"), of="y")),
    (SecretStr("x"), SecretStr("y")),
    (SecretBytes(b"x"), SecretBytes(b"y")),
    (Login(password=SecretStr("x")), Login(password=SecretStr("y"))),
    (Login(tenant="x"), Login(tenant="y")),
    (Login(), seen(Login(), "x")),
    (Open.model_validate({"x": 1}), Open.model_validate({"x": 2})),
    (RootModel[int](1), RootModel[str]("1")),
    (Client(key="x"), Client(key="y")),
    (attributed(Client(), tenant="x"), attributed(Client(), tenant="y")),
    (Equal(), Equal()),
    (enum.Flag("F", "A", boundary=enum.KEEP)(8), enum.Flag("F", "A", boundary=enum.KEEP)(16)),
    (enum.IntFlag("F", "A")(8), enum.IntFlag("F", "A")(16)),
    (Login, Client),
    (closure_over("x"), closure_over("y")),
]


def key(value: Any) -> str:
    return key_of("look_up", look_up, {"value": value})


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "inside", [lambda v: v, lambda v: [v], lambda v: {"x": (v,)}], ids=["", "list", "dict"]
)
def test_what_a_tool_can_tell_apart_has_another_key(
    one: Any, other: Any, inside: Callable[[Any], Any]
) -> None:
    assert key(inside(one)) != key(inside(other))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [1, "a", None, 1.5, math.nan, b"x", (True,)],
        lambda: {"b", "a", "c"},
        lambda: {Colour.red, Colour.blue},
        lambda: Login(password=SecretStr("x"), tenant="t"),
        lambda: Client(key="x"),
        lambda: [NOON, Decimal("1.0"), uuid.UUID(int=7), Path("a"), datetime.timedelta(1)],
        lambda: "half \ud83d of a pair",
    ],
)
def test_equal_plain_data_has_one_key_in_all_processes(make: Callable[[], Any]) -> None:
    assert key(make()) == key(make())


def test_another_process_finds_the_same_key() -> None:
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.tools.test_cache_key import *\n"
        "print(key([{'a', 'b', 'c'}, Login(password=SecretStr('x')), Client(), Colour.red, Path('a')]))"
    )
    root = Path(__file__).resolve().parents[2]
    found = {
        subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True).stdout
        for _ in range(2)
    }
    mine = key([{"a", "b", "c"}, Login(password=SecretStr("x")), Client(), Colour.red, Path("a")])
    assert found == {f"{mine}\n".encode()}


class Connection:
    def __init__(self) -> None:
        self.inner = sqlite3.connect(":memory:")
        self.inner.close()  # no one uses it: only its type matters


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "builtins.object cannot be told apart from others"),
        (iter([1]), "builtins.list_iterator has data that cannot be seen"),
        (Connection(), "sqlite3.Connection has data that cannot be seen"),
        (itself(), "a value contains itself"),
    ],
    ids=["object", "iterator", "connection", "itself"],
)
def test_what_cannot_be_told_apart_has_no_key(value: Any, why: str) -> None:
    with pytest.raises(NoKeyError, match=why):
        key([value])


def test_results_without_a_key_are_not_cached_which_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connection, counts = Connection(), iter(range(9))

    @tool(cache_results=True, cache_dir=tmp_path)
    def rows() -> str:
        """Count the rows."""
        return f"{next(counts)} in {connection.inner}"

    agent = Agent(model=ScriptedModel([tool_call("rows"), tool_call("rows"), "done"]), tools=[rows])
    assert [str(call.result)[:1] for call in agent.run("go").tools] == ["0", "1"]
    assert not list(tmp_path.iterdir())
    assert len([r for r in caplog.records if "its results are not cached" in r.getMessage()]) == 1


class Http:
    def __init__(self) -> None:
        self.headers = {"user": "ann"}
        self.lock = threading.Lock()


def test_an_object_that_has_changed_has_another_key() -> None:
    http = Http()
    first = key(http)
    assert key(http) == first
    http.headers["user"] = "bob"
    assert key(http) != first


def run_program(folder: Path, text: str, cache: Path) -> str:
    folder.mkdir()
    (folder / "app.py").write_text(
        "from kern import Agent, tool\n"
        "from kern.testing import ScriptedModel, tool_call\n"
        f"@tool(cache_results=True, cache_dir={str(cache)!r})\n"
        f"def search(text: str) -> str:\n    return PREFIX + {text!r}\n"
        f"PREFIX = {text!r}\n"
        "model = ScriptedModel([tool_call('search', text='x'), 'done'])\n"
        "print(Agent(model=model, tools=[search]).run('go').tools[0].result)\n"
    )
    done = subprocess.run([sys.executable, "app.py"], cwd=folder, capture_output=True, check=True, text=True)
    return done.stdout.strip()


def test_two_programs_whose_functions_have_one_name_do_not_share_results(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run_program(tmp_path / "a", "a", cache) == "aa"
    assert run_program(tmp_path / "b", "b", cache) == "bb"
    assert run_program(tmp_path / "c", "b", cache) == "bb"
    assert len(list(cache.iterdir())) == 3


def test_a_function_whose_code_was_changed_has_another_key() -> None:
    made = []
    for answer in ("1", "2", "1"):
        space: dict[str, Any] = {}
        exec(f"def t():\n    def inner(): return {answer}\n    return inner() in {{'a', 'b'}}", space)
        made.append(key_of("t", space["t"], {}))
    assert made[0] == made[2] != made[1]


def closure(value: Any) -> Callable[[], Any]:
    def customers() -> Any:
        return value

    return customers


def default(value: Any) -> Callable[..., Any]:
    def customers(given: Any = value, *, tenant: Any = value) -> Any:
        return given, tenant

    return customers


def keyword_default(value: Any) -> Callable[..., Any]:
    def customers(*, tenant: Any = value) -> Any:
        return tenant

    return customers


class Crm(Toolkit):
    def __init__(self, settings: Any) -> None:
        self.settings = settings
        super().__init__(name="crm", tools=[self.customers])

    def customers(self) -> Any:
        return self.settings


class Named(Toolkit):
    def __init__(self, name: str = "crm", instructions: str | None = None) -> None:
        super().__init__(name=name, instructions=instructions, tools=[self.customers])

    def customers(self) -> str:
        return f"of {self.name} {self.instructions}"


def toolkit_of(tenant: Any) -> Callable[[], Any]:
    class Kit(Toolkit):
        owner = tenant

        def __init__(self) -> None:
            super().__init__(name="kit", tools=[self.customers])

        def customers(self) -> Any:
            return self.owner

    return Kit().customers


def class_of(tenant: Any, method: str) -> Callable[[], Any]:
    class Kit:
        owner = tenant

        def customers(self) -> Any:
            return self.owner

        @classmethod
        def of_class(cls) -> Any:
            return cls.owner

        @staticmethod
        def helper() -> Any:
            return tenant

        @property
        def by_helper(self) -> Any:
            return self.helper()

        def helped(self) -> Any:
            return self.by_helper

    made: Callable[[], Any] = getattr(Kit(), method)
    return made


@pytest.mark.parametrize(
    "bind",
    [
        closure,
        default,
        keyword_default,
        lambda value: functools.partial(look_up, value),
        lambda value: functools.partial(look_up, value=value),
        lambda value: Crm(value).customers,
        lambda value: Login(password=value).customers,
        lambda value: Slotted(value.get_secret_value()).customers,
        lambda value: Named(name=value.get_secret_value()).customers,
        lambda value: Named(instructions=value.get_secret_value()).customers,
        toolkit_of,
        lambda value: class_of(value, "of_class"),
        lambda value: functools.wraps(look_up)(closure(value)),
    ],
)
def test_what_a_callable_is_bound_to_belongs_to_the_key(bind: Callable[[Any], Callable[..., Any]]) -> None:
    ann, bob, again = (key_of("t", bind(SecretStr(name)), {}) for name in ("ann", "bob", "ann"))
    assert ann != bob
    assert ann == again


@pytest.mark.parametrize("method", ["customers", "of_class", "helped"])
def test_what_the_class_of_a_factory_has_belongs_to_the_key(method: str) -> None:
    kept = [class_of(name, method) for name in ("ann", "bob")]
    assert key_of("t", kept[0], {}) == key_of("t", kept[0], {})
    assert key_of("t", kept[0], {}) != key_of("t", kept[1], {})


UNSET = object()


def test_a_default_of_a_field_is_plain_data_and_one_that_is_no_data_is_found_in_this_process() -> None:
    assert key_of("t", default(Field(5)), {}) == key_of("t", default(Field(5)), {})
    assert key_of("t", default(Field(5)), {}) != key_of("t", default(Field(6)), {})
    function = default(UNSET)
    assert key_of("t", function, {}) == key_of("t", function, {})
    assert key_of("t", function, {}) != key_of("t", default(UNSET), {})


def test_one_customers_result_is_not_served_to_another(tmp_path: Path) -> None:
    @tool(cache_results=True, cache_dir=tmp_path)
    def check(login: Login) -> str:
        """Check the password."""
        return "right" if login.password.get_secret_value() == "letmein" else "wrong"

    told = []
    for password in ("letmein", "guess", "letmein"):
        call = tool_call("check", login={"user": "ann", "password": password})
        output = Agent(model=ScriptedModel([call, "done"]), tools=[check]).run("go")
        told.append(output.tools[0].result)
    assert told == ["right", "wrong", "right"]
