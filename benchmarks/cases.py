"""What is measured, and what it is held against: the table of cases, and the rows that are read from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

PEERS = ("agno", "pydantic_ai", "openai_agents", "langgraph")


@dataclass(frozen=True)
class Variant:
    """One process that takes part in a case.

    Args:
        label: What the rows call it.
        contender: A module of `benchmarks.contenders`.
        env: The environment it runs in; "" is this one.
        model: Another model than the case's, such as one without latency.
        count: Other units than the case's.
        shape: Another shape than the case's.
        rounds: At most so often, for what takes minutes.
        fast: Kern with its extra `fast`; otherwise it has the core dependencies alone.
    """

    label: str
    contender: str
    env: str = ""
    model: str = ""
    count: int = 0
    shape: str = ""
    rounds: int = 99
    fast: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        title: What is measured.
        metric: Its name in the worker's answer.
        unit: Of the value shown.
        scale: From seconds or bytes to the unit.
        of: The variant that is judged.
        against: The variant that it is held against; "" for a limit on the value itself.
        at_most: The highest ratio to `against`, or the highest value; None: no target was set.
        plus: The limit is on the difference to `against`, in `unit`, and not on the ratio.
        fastest_by: How many times faster than every peer, at least.
    """

    title: str
    metric: str
    unit: str
    scale: float = 1.0
    of: str = "kern"
    against: str = "floor"
    at_most: float | None = None
    plus: bool = False
    fastest_by: float = 1.0


@dataclass(frozen=True)
class Case:
    """A job, how often it is done, and by whom."""

    name: str
    job: str
    shape: str
    count: int
    rows: tuple[Row, ...]
    model: str = "tool"
    protocol: str = "chat"
    expected: int = 1
    size: int = 0
    variants: tuple[Variant, ...] = ()
    peers: bool = True
    peer_count: int = 0
    peer_rounds: int = 99
    rounds: int = 5
    warm_up: int = 0
    quick: Callable[[Case], Case] = field(default=lambda case: case)

    def all_variants(self, with_peers: bool) -> list[Variant]:
        """Who takes part; peers last."""
        own = list(self.variants)
        if with_peers and self.peers:
            own += [
                Variant(peer, peer, env=peer, count=self.peer_count, rounds=self.peer_rounds)
                for peer in PEERS
            ]
        return own


FLOOR, KERN = Variant("floor", "floor"), Variant("kern", "kern_runtime")
BOTH = (FLOOR, KERN)
FAST = Variant("kern-agents[fast]", "kern_runtime", fast=True)


def _smaller(divisor: int) -> Callable[[Case], Case]:
    return lambda case: replace(
        case,
        count=max(1, case.count // divisor),
        peer_count=case.peer_count // divisor,
        variants=tuple(replace(variant, count=variant.count // divisor) for variant in case.variants),
        rounds=3,
    )


def _shorter(case: Case) -> Case:
    tokens = case.expected // 4
    return replace(case, model=f"text:{tokens}", expected=tokens, rounds=3)


def _state(name: str, size: int) -> Case:
    return Case(
        name=f"state-{name}",
        job="state",
        shape="sequential",
        count=max(10, 50_000_000 // max(size, 250_000)) // 2,
        size=size,
        rows=(Row(f"state of {name} touched by the tool: CPU per run", "cpu", "ms", 1e3),),
        variants=BOTH,
        quick=_smaller(5),
    )


CASES = (
    Case(
        name="import",
        job="import",
        shape="import",
        count=1,
        rows=(Row("import, against the five core packages", "cpu", "ms", 1e3, at_most=1.3),),
        variants=BOTH,
        rounds=9,
        peer_rounds=3,
    ),
    Case(
        name="first-agent",
        job="first_agent",
        shape="import",
        count=1,
        rows=(Row("the same, and a first agent with a model and a tool", "cpu", "ms", 1e3, against=""),),
        variants=(KERN,),
        rounds=9,
        peer_rounds=3,
    ),
    Case(
        name="construct",
        job="construct",
        shape="construct",
        count=10_000,
        rows=(
            Row("an agent with one tool: memory", "bytes", "KiB", 1 / 1024, against="", at_most=4.0),
            Row("an agent with one tool: construction", "cpu", "us", 1e6, against=""),
        ),
        variants=(KERN,),
        peer_count=10_000,
        rounds=3,
        peer_rounds=1,
        quick=_smaller(10),
    ),
    Case(
        name="tool-run",
        job="tool_run",
        shape="sequential",
        count=200,
        rows=(Row("a run with one tool call: CPU", "cpu", "ms", 1e3, at_most=1.5),),
        variants=BOTH,
        quick=_smaller(4),
    ),
    Case(
        name="tool-run-responses",
        job="tool_run",
        shape="sequential",
        count=200,
        protocol="responses",
        rows=(Row("the same over the Responses API", "cpu", "ms", 1e3, at_most=1.5),),
        variants=BOTH,
        peers=False,
        quick=_smaller(4),
    ),
    Case(
        name="many",
        job="tool_run",
        shape="concurrent",
        count=1000,
        model="tool@100",
        rows=(
            Row(
                "1,000 runs at once: CPU per run, against one by one",
                "cpu",
                "ms",
                1e3,
                against="one by one",
                at_most=1.3,
            ),
            Row(
                "the same with the fast extra",
                "cpu",
                "ms",
                1e3,
                of="kern-agents[fast]",
                against="one by one",
                at_most=0.6,
            ),
            Row("1,000 runs at once, 100 ms latency: wall", "wall", "s", against="sockets", fastest_by=5.0),
        ),
        variants=(
            KERN,
            FAST,
            Variant("one by one", "kern_runtime", model="tool", count=200, shape="sequential"),
            Variant("sockets", "sockets"),
        ),
        rounds=3,
        peer_rounds=1,
        quick=_smaller(5),
    ),
    Case(
        name="stream",
        job="stream",
        shape="sequential",
        count=1,
        model="text:20000",
        expected=20_000,
        rows=(Row("a stream of 20,000 tokens: CPU per token", "token_cpu", "us", 1e6, at_most=1.3),),
        variants=BOTH,
        peer_rounds=3,
        quick=_shorter,
    ),
    Case(
        name="stream-responses",
        job="stream",
        shape="sequential",
        count=1,
        model="text:20000",
        protocol="responses",
        expected=20_000,
        rows=(Row("the same over the Responses API", "token_cpu", "us", 1e6, at_most=1.3),),
        variants=BOTH,
        peers=False,
        quick=_shorter,
    ),
    Case(
        name="first-token",
        job="stream",
        shape="sequential",
        count=50,
        model="text:20@20",
        expected=20,
        rows=(Row("time to the first token, 20 ms latency", "first", "ms", 1e3, at_most=1.0, plus=True),),
        variants=BOTH,
        rounds=3,
        quick=_smaller(3),
    ),
    Case(
        name="streams",
        job="stream",
        shape="concurrent",
        count=200,
        model="text:200",
        expected=200,
        rows=(Row("200 streams of 200 tokens at once: CPU each", "cpu", "ms", 1e3, at_most=1.5),),
        variants=BOTH,
        peer_rounds=2,
        quick=_smaller(4),
    ),
    Case(
        name="team",
        job="team",
        shape="sequential",
        count=5,
        model="leader:8@100",
        expected=8,
        rows=(Row("8 members in parallel: wall", "wall", "s", 1.0, against="ideal", at_most=1.15),),
        variants=(KERN,),
        rounds=3,
        quick=_smaller(5),
    ),
    Case(
        name="session-300",
        job="session",
        shape="series",
        count=300,
        rows=(
            Row("run 300 of one SQLite session: wall", "wall", "ms", 1e3),
            Row("run 300, against run 10: wall", "wall_growth", "x", against="", at_most=1.1),
        ),
        variants=BOTH,
        rounds=1,
        quick=_smaller(5),
    ),
    Case(
        name="session-1000",
        job="session",
        shape="series",
        count=1000,
        rows=(
            Row("run 1,000 of one SQLite session: CPU", "cpu", "ms", 1e3),
            Row("run 1,000, against run 10: wall", "wall_growth", "x", against="", at_most=1.1),
            Row("run 1,000, against run 10: CPU", "cpu_growth", "x", against="", at_most=1.1),
            Row("run 1,000, against run 10: bytes written", "written_growth", "x", against="", at_most=1.02),
            Row("bytes written per run", "written", "kB", 1e-3),
        ),
        variants=BOTH,
        peers=False,
        rounds=1,
        quick=_smaller(5),
    ),
    Case(
        name="one-session",
        job="session",
        shape="concurrent",
        count=50,
        rows=(
            Row("50 runs on one session at once: CPU each", "cpu", "ms", 1e3),
            Row("50 runs on one session at once: counts lost", "lost", "", against="", at_most=0.0),
        ),
        variants=BOTH,
        rounds=3,
        peer_rounds=1,
    ),
    _state("1 kB", 1_000),
    _state("100 kB", 100_000),
    _state("1 MB", 1_000_000),
)
IDEAL = {"team": {"wall": 0.4}}
