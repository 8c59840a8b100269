"""The statements of a `PostgresDb`. A commit is one of them, so that no process holds a lock while it does
anything else: one that is frozen holds nobody up.
"""

from __future__ import annotations

from collections.abc import Mapping

_FIRST = """FROM (
            SELECT user_id FROM {claims} WHERE session_id = $1 AND seq = (
                SELECT min(seq) FROM {claims} AS c
                WHERE session_id = $1 AND (request IS NOT NULL
                    OR EXISTS (SELECT FROM {steps} AS s WHERE s.run_id = c.run_id)))) AS first"""
"""The oldest durable run in a session that has not ended."""

_PARTS = {
    "session": (
        "s.session_id, s.user_id, s.state, s.state_version, s.revision, s.version,"
        " s.name, s.summary, s.created_at, s.updated_at, s.generation, s.used"
    ),
    "info": "session_id, user_id, name, summary, created_at, updated_at, used",
    "run": (
        "r.run_id, r.session_id, r.runner_id, r.parent_run_id, r.status, r.generation, r.data, r.created_at"
    ),
    "change": "session_id, revision, patch, agent_path, run_id, tool, tool_call_id, created_at",
    "now": "clock_timestamp()",
    # For a lease: the time of the request, and whether the lease is free.
    "asked": "(excluded.expires_at - make_interval(secs => excluded.seconds))",
    "free": "(l.owner = excluded.owner OR l.expires_at <= "
    "excluded.expires_at - make_interval(secs => excluded.seconds))",
    # For a claim: what is on record of a run stays, so that knowing its id does not make anybody its owner.
    "begun": (
        "(excluded.session_id IS NULL OR (c.session_id IS NOT NULL AND (c.request IS NOT NULL "
        "OR EXISTS (SELECT FROM {steps} AS s WHERE s.run_id = c.run_id))))"
    ),
    # The claim of a process that died before its first step, or of a run without a journal.
    "dead": (
        "(c.request IS NULL AND c.expires_at <= clock_timestamp() "
        "AND NOT EXISTS (SELECT FROM {steps} AS s WHERE s.run_id = c.run_id))"
    ),
    "first": _FIRST,
    # Where a page begins. If the run before it is not stored any more, the page is empty.
    "before": "CASE WHEN $2::text IS NULL THEN 9223372036854775807 "
    "ELSE (SELECT seq FROM {runs} WHERE run_id = $2) END",
}

_UNKNOWN_RUNS = """NOT EXISTS (
            SELECT FROM {runs} WHERE run_id = ANY($9::text[])
            AND (session_id <> $1 OR (run_id = $10::text AND generation >= $11::bigint)))"""
"""True if the commit was not made before, and no run of another session has one of its runs' ids."""

_INSERT = """
    INSERT INTO {t} AS x (session_id, user_id, generation, created_at, used,
        updated_at, revision, version, state_version, summary, state)
    SELECT $1::text, $27::text, $28::text, $29::float8, nextval('{order}'),
        $3::float8, $4::bigint, $5::bigint, $6::bigint, $7::text, coalesce($8::json, '{{}}')
    WHERE $2::bigint IS NULL AND {unknown_runs}
        AND NOT EXISTS (SELECT {first} WHERE first.user_id IS DISTINCT FROM $27::text)
    ON CONFLICT (session_id) DO NOTHING RETURNING x.used, x.name, x.summary"""
_UPDATE = """
    UPDATE {t} AS x SET used = nextval('{order}'), updated_at = $3::float8, revision = $4::bigint,
        version = $5::bigint, state_version = $6::bigint, summary = coalesce($7::text, x.summary),
        state = coalesce($8::json, x.state)
    WHERE x.session_id = $1::text AND x.used = $2::bigint AND {unknown_runs}
    RETURNING x.used, x.name, x.summary"""

# If a run of another session has just taken the id, NULL violates a constraint, and the commit is repeated.
_REST = """
), runs AS (
    INSERT INTO {runs} AS r
        (run_id, session_id, runner_id, parent_run_id, status, generation, created_at, data)
    SELECT u.run_id, $1, u.runner_id, u.parent_run_id, u.status, u.generation, u.created_at, u.data
    FROM unnest($9::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::float8[], $17::json[])
        AS u (run_id, runner_id, parent_run_id, status, generation, created_at, data)
    WHERE EXISTS (SELECT FROM session)
    ON CONFLICT (run_id) DO UPDATE SET
        session_id = CASE WHEN r.session_id = excluded.session_id THEN r.session_id END,
        runner_id = excluded.runner_id, parent_run_id = excluded.parent_run_id, status = excluded.status,
        generation = excluded.generation, created_at = excluded.created_at, data = excluded.data
    WHERE excluded.generation > r.generation OR excluded.session_id <> r.session_id
), cancels AS (
    DELETE FROM {cancels} WHERE run_id = ANY($18::text[]) AND EXISTS (SELECT FROM session)
), changes AS (
    INSERT INTO {changes}
        (session_id, revision, run_id, tool, tool_call_id, agent_path, created_at, patch, commit_id)
    SELECT $1, u.*, $26::text
    FROM unnest(
        $19::bigint[], $20::text[], $21::text[], $22::text[], $23::json[], $24::float8[], $25::json[]) AS u
    WHERE EXISTS (SELECT FROM session)
){more}
SELECT used, name, summary FROM session"""

_MEDIA = """, media AS (
    INSERT INTO {media} (session_id, sha256, data)
    SELECT $1, u.* FROM unnest({hashes}::text[], {bytes}::bytea[]) AS u
    WHERE EXISTS (SELECT FROM session)
    ON CONFLICT DO NOTHING
)"""

_SQL = {
    "load_session": "SELECT {session} FROM {t} AS s WHERE session_id = $1",
    "load_session_and_run": """
        SELECT {session}, {run} FROM (VALUES (1)) AS one
        LEFT JOIN {t} AS s ON s.session_id = $1 LEFT JOIN {runs} AS r ON r.run_id = $2""",
    "read_for_commit": """
        SELECT {session},
            (SELECT json_agg(json_build_array(run_id, session_id, generation))
                FROM {runs} WHERE run_id = ANY($2::text[])),
            EXISTS (SELECT FROM {changes} WHERE session_id = $1 AND revision > $3 AND commit_id = $4),
            (SELECT json_build_array(first.user_id) {first} WHERE s.session_id IS NULL)
        FROM (VALUES (1)) AS one LEFT JOIN {t} AS s ON s.session_id = $1""",
    "lock_session": "SELECT 1 FROM {t} WHERE session_id = $1 FOR UPDATE",
    "load_run": "SELECT {run} FROM {runs} AS r WHERE run_id = $1",
    "load_runs": """
        SELECT {run} FROM {runs} AS r
        WHERE session_id = $1 AND ($2::text IS NULL OR runner_id = $2) AND (NOT $3 OR parent_run_id IS NULL)
        ORDER BY seq DESC LIMIT $4""",
    "load_media": "SELECT sha256, data FROM {media} WHERE session_id = $1 AND sha256 = ANY($2::text[])",
    "load_changes": """
        SELECT {change} FROM {changes} WHERE session_id = $1 AND revision > $2 ORDER BY revision, seq""",
    "list_sessions": "SELECT {info} FROM {t} WHERE used < $1 ORDER BY used DESC LIMIT $2",
    "list_sessions_of_user": """
        SELECT {info} FROM {t} WHERE user_id = $3 AND used < $1 ORDER BY used DESC LIMIT $2""",
    "list_runs": """
        SELECT {run} FROM {runs} AS r
        WHERE seq < {before} AND parent_run_id IS NULL AND ($1::text IS NULL OR status = $1)
        ORDER BY seq DESC LIMIT $3""",
    "list_runs_of_session": """
        SELECT {run} FROM {runs} AS r
        WHERE session_id = $4 AND seq < {before} AND parent_run_id IS NULL
            AND ($1::text IS NULL OR status = $1)
            AND ($5::text IS NULL OR EXISTS (SELECT FROM {t} WHERE session_id = $4 AND user_id = $5))
        ORDER BY seq DESC LIMIT $3""",
    "list_runs_of_user": """
        SELECT {run} FROM {t} AS s JOIN {runs} AS r ON r.session_id = s.session_id
        WHERE s.user_id = $4 AND r.seq < {before} AND r.parent_run_id IS NULL
            AND ($1::text IS NULL OR r.status = $1)
        ORDER BY r.seq DESC LIMIT $3""",
    # The condition is that of the partial index: there are few runs that are not completed.
    "list_runs_by_status": """
        SELECT {run} FROM {runs} AS r
        WHERE status = $1 AND status <> 'COMPLETED' AND parent_run_id IS NULL AND seq < {before}
        ORDER BY seq DESC LIMIT $3""",
    "list_runs_by_status_of_user": """
        SELECT {run} FROM {runs} AS r JOIN {t} AS s ON s.session_id = r.session_id
        WHERE r.status = $1 AND r.status <> 'COMPLETED' AND r.parent_run_id IS NULL AND r.seq < {before}
            AND s.user_id = $4
        ORDER BY r.seq DESC LIMIT $3""",
    "describe_session": """
        UPDATE {t} SET name = coalesce($2, name), summary = coalesce($3, summary) WHERE session_id = $1
        RETURNING 1""",
    "lock_sessions_of_user": """
        SELECT session_id FROM {t} WHERE user_id = $1 ORDER BY session_id FOR UPDATE""",
    "delete_sessions": """
        WITH runs AS (DELETE FROM {runs} WHERE session_id = ANY($1::text[]) RETURNING run_id),
            begun AS (DELETE FROM {claims} WHERE run_id IN (
                SELECT run_id FROM {claims} WHERE session_id = ANY($1::text[])
                UNION ALL SELECT run_id FROM {claims} WHERE user_id = $2::text) RETURNING run_id),
            steps AS (DELETE FROM {steps} WHERE run_id IN (SELECT run_id FROM begun)),
            events AS (DELETE FROM {events} WHERE run_id IN (SELECT run_id FROM runs
                UNION SELECT run_id FROM begun)),
            changes AS (DELETE FROM {changes} WHERE session_id = ANY($1::text[])),
            media AS (DELETE FROM {media} WHERE session_id = ANY($1::text[])),
            cancels AS (DELETE FROM {cancels} WHERE run_id IN (SELECT run_id FROM runs))
        DELETE FROM {t} WHERE session_id = ANY($1::text[])""",
    "delete_cancels_of_user": "DELETE FROM {cancels} WHERE user_id = $1 AND NOT trusted",
    # More time left than the lease was given for: the clock was set back. Its owner has time to renew it.
    "acquire_lease": """
        INSERT INTO {leases} AS l (name, owner, seconds, expires_at)
        VALUES ($1, $2, $3::float8, {now} + make_interval(secs => $3::float8))
        ON CONFLICT (name) DO UPDATE SET
            owner = CASE WHEN {free} THEN excluded.owner ELSE l.owner END,
            seconds = CASE WHEN {free} THEN excluded.seconds ELSE l.seconds END,
            expires_at = CASE WHEN {free} THEN excluded.expires_at
                ELSE {asked} + make_interval(secs => l.seconds) END
        WHERE {free} OR l.expires_at > {asked} + make_interval(secs => l.seconds)
        RETURNING l.owner = $2""",
    "claim_run": """
        WITH forgotten AS (
            DELETE FROM {events} AS e WHERE written_at < {now} - make_interval(secs => $8::float8)
            AND NOT EXISTS (SELECT FROM {claims} AS c WHERE c.run_id = e.run_id)
            AND NOT EXISTS (SELECT FROM {runs} AS r WHERE r.run_id = e.run_id AND r.status = 'PAUSED')
            AND NOT EXISTS (SELECT FROM {events} AS n WHERE n.run_id = e.run_id
                AND n.written_at >= {now} - make_interval(secs => $8::float8))
        )
        INSERT INTO {claims} AS c
            (run_id, owner, attempt, seconds, expires_at, begun_at, session_id, user_id, runner_id, is_team)
        VALUES ($1, $2, 1, $3::float8, {now} + make_interval(secs => $3::float8), {now},
            $4, $5, $6, $7::boolean)
        ON CONFLICT (run_id) DO UPDATE SET
            attempt = CASE WHEN c.owner = excluded.owner THEN c.attempt ELSE c.attempt + 1 END,
            before = CASE WHEN c.owner = excluded.owner THEN c.before ELSE nullif(c.owner, '') END,
            owner = excluded.owner, seconds = excluded.seconds, expires_at = excluded.expires_at,
            session_id = CASE WHEN {begun} THEN c.session_id ELSE excluded.session_id END,
            user_id = CASE WHEN {begun} THEN c.user_id ELSE excluded.user_id END,
            runner_id = CASE WHEN {begun} THEN c.runner_id ELSE excluded.runner_id END,
            is_team = CASE WHEN {begun} THEN c.is_team ELSE excluded.is_team END
        WHERE c.owner = excluded.owner OR c.expires_at <= {now}
        RETURNING c.attempt, c.before, c.session_id, c.user_id, c.runner_id, c.is_team,
            (SELECT coalesce(max(last_seq), 0) FROM {events} WHERE run_id = $1)""",
    "load_events": """
        SELECT last_seq, data FROM {events} WHERE run_id = $1 AND last_seq > $2::bigint
        ORDER BY last_seq LIMIT $3::bigint""",
    "running_runs": """
        SELECT run_id, session_id, user_id, runner_id, is_team, CASE WHEN expires_at > {now} THEN owner END,
            attempt, extract(epoch FROM begun_at)::float8,
            CASE WHEN isfinite(expires_at) THEN extract(epoch FROM expires_at)::float8 - seconds
                ELSE extract(epoch FROM begun_at)::float8 END
        FROM {claims} AS c
        WHERE session_id IS NOT NULL AND ($1::text IS NULL OR run_id = $1)
            AND ($2::text IS NULL OR session_id = $2) AND ($3::text IS NULL OR user_id = $3)
            AND ($4::text IS NULL OR seq < (SELECT seq FROM {claims} WHERE run_id = $4))
            AND (request IS NOT NULL OR EXISTS (SELECT FROM {steps} AS s WHERE s.run_id = c.run_id))
        ORDER BY seq DESC LIMIT $5::bigint""",
    "load_steps": "SELECT key, kind, data FROM {steps} WHERE run_id = $1 ORDER BY seq",
    "append_steps": """
        WITH held AS (
            UPDATE {claims} SET seconds = $3::float8, expires_at = {now} + make_interval(secs => $3::float8)
            WHERE run_id = $1 AND owner = $2 RETURNING 1
        ), kept AS (
            INSERT INTO {steps} (run_id, key, kind, data)
            SELECT $1, u.key, u.kind, u.data
            FROM unnest($4::text[], $5::text[], $6::json[]) WITH ORDINALITY AS u (key, kind, data, place)
            WHERE EXISTS (SELECT FROM held) ORDER BY u.place
            ON CONFLICT DO NOTHING
        ), told AS (
            INSERT INTO {events} (run_id, last_seq, written_at, data)
            SELECT $1, e.last_seq, {now}, e.data FROM unnest($7::bigint[], $8::json[]) AS e (last_seq, data)
            WHERE EXISTS (SELECT FROM held)
            ON CONFLICT DO NOTHING
        ) SELECT count(*) FROM held""",
    "has_claim": "SELECT 1 FROM {claims} WHERE run_id = $1 AND owner = $2",
    "release_claim": """
        WITH gone AS (
            DELETE FROM {claims} WHERE run_id = $1 AND owner = $2
            AND request IS NULL AND NOT EXISTS (SELECT FROM {steps} WHERE run_id = $1)
        ) UPDATE {claims} SET expires_at = '-infinity' WHERE run_id = $1 AND owner = $2
            AND (request IS NOT NULL OR EXISTS (SELECT FROM {steps} WHERE run_id = $1))""",
    "submit_run": """
        WITH stored AS (
            SELECT user_id FROM {t} WHERE session_id = $1
        ), foreigner AS (
            SELECT 1 FROM (SELECT user_id FROM stored UNION ALL
                SELECT first.user_id {first} WHERE NOT EXISTS (SELECT FROM stored)) AS whose
            WHERE user_id IS DISTINCT FROM $3::text
        ), known AS (
            SELECT 1 FROM {runs} WHERE run_id = $2 UNION ALL
            SELECT 1 FROM {claims} AS c WHERE run_id = $2 AND NOT {dead}
        ), put AS (
            INSERT INTO {claims} AS c
                (session_id, run_id, user_id, runner_id, is_team, request,
                owner, attempt, seconds, expires_at)
            SELECT $1, $2, $3::text, $4, $5, $6, '', 0, 0, '-infinity'
            WHERE ($7 OR EXISTS (SELECT FROM stored)) AND NOT EXISTS (SELECT FROM known)
                AND NOT EXISTS (SELECT FROM foreigner)
            ON CONFLICT (run_id) DO UPDATE SET
                session_id = excluded.session_id, user_id = excluded.user_id, runner_id = excluded.runner_id,
                is_team = excluded.is_team, request = excluded.request, owner = '', attempt = 0,
                before = NULL, seconds = 0, expires_at = '-infinity', begun_at = {now}
            WHERE {dead} RETURNING 1
        ) SELECT EXISTS (SELECT FROM put), EXISTS (SELECT FROM known), EXISTS (SELECT FROM foreigner),
            EXISTS (SELECT FROM stored)""",
    "load_request": """
        SELECT coalesce(request, (SELECT data FROM {steps} AS s
            WHERE s.run_id = c.run_id AND kind = 'base' ORDER BY seq LIMIT 1))
        FROM {claims} AS c WHERE run_id = $1""",
    "take_run": """
        UPDATE {claims} SET attempt = attempt + 1, before = nullif(owner, ''), owner = $1,
            seconds = $2::float8, expires_at = {now} + make_interval(secs => $2::float8)
        WHERE run_id = (
            SELECT run_id FROM {claims}
            WHERE request IS NOT NULL AND runner_id = ANY($3::text[]) AND expires_at <= {now}
            ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING run_id, attempt, before, request""",
    "forget_run": """
        WITH gone AS (
            DELETE FROM {claims} WHERE run_id = $1 AND ($2::text IS NULL OR owner = $2) RETURNING 1
        ), steps AS (
            DELETE FROM {steps} WHERE run_id = $1 AND EXISTS (SELECT FROM gone)
        ) SELECT 1 FROM gone""",
    "unfinished_runs": """
        SELECT run_id FROM {claims} AS c WHERE expires_at <= {now}
            AND (request IS NOT NULL OR EXISTS (SELECT FROM {steps} AS s WHERE s.run_id = c.run_id))
        ORDER BY seq LIMIT $1""",
    "release_lease": "DELETE FROM {leases} WHERE name = $1 AND owner = $2",
    "request_cancel": """
        WITH forgotten AS (
            DELETE FROM {cancels} AS c
            WHERE (requested_at < {now} - make_interval(secs => $4) OR (trusted = $2 AND user_id = $3
                AND seq <= (SELECT seq FROM {cancels} WHERE trusted = $2 AND user_id = $3
                    ORDER BY seq DESC LIMIT 1 OFFSET $5::bigint - 1)))
            AND run_id <> $1 AND NOT EXISTS (SELECT FROM {claims} AS k WHERE k.run_id = c.run_id))
        INSERT INTO {cancels} (run_id, trusted, user_id, requested_at) VALUES ($1, $2, $3, {now})
        ON CONFLICT (run_id, trusted, user_id) DO UPDATE SET requested_at = excluded.requested_at""",
    "find_cancels": """
        SELECT c.run_id, c.trusted, c.user_id, c.requested_at,
            extract(epoch FROM {now} - c.requested_at)::float8
        FROM unnest($1::text[], $2::text[]) AS a (run_id, owner)
        JOIN {cancels} AS c ON c.run_id = a.run_id AND (c.trusted OR c.user_id = a.owner)""",
    "take_cancels": """
        DELETE FROM {cancels} AS c
        USING unnest($1::text[], $2::boolean[], $3::text[], $4::timestamptz[])
            AS a (run_id, trusted, user_id, requested_at)
        WHERE (c.run_id, c.trusted, c.user_id, c.requested_at) =
            (a.run_id, a.trusted, a.user_id, a.requested_at)""",
}


_HELD = "held AS (SELECT 1 FROM {claims} WHERE run_id = {run} AND owner = {owner} FOR UPDATE), "
_ENDED = """, claims AS (
    DELETE FROM {claims} WHERE run_id = {run} AND owner = {owner} AND EXISTS (SELECT FROM session)
), steps AS (
    DELETE FROM {steps} WHERE run_id = {run} AND EXISTS (SELECT FROM session)
)"""
"""For the end of a run with a journal: commits only if the claim holds, and deletes claim and steps."""


def statements(names: Mapping[str, str]) -> dict[str, str]:
    """All statements for these tables, by name."""
    made = {name: text.format_map({**_PARTS, **names}).format_map(names) for name, text in _SQL.items()}
    for name, head, last in (("insert", _INSERT, 29), ("update", _UPDATE, 26)):
        media = _MEDIA.format_map({**names, "hashes": f"${last + 1}", "bytes": f"${last + 2}"})
        for kind, more, values in ((name, "", last), (f"{name}_with_media", media, last + 2)):
            whole = f"session AS ({head}{_REST}"
            whole = whole.replace("{first}", _FIRST)
            plain = whole.replace("{unknown_runs}", _UNKNOWN_RUNS)
            made[kind] = "WITH " + plain.format_map({**names, "more": more})
            claim = {**names, "run": f"${values + 1}::text", "owner": f"${values + 2}::text"}
            claimed = whole.replace("{unknown_runs}", f"{_UNKNOWN_RUNS} AND EXISTS (SELECT FROM held)")
            ended = _ENDED.format_map(claim)
            made[f"{kind}_claimed"] = (
                "WITH " + _HELD.format_map(claim) + claimed.format_map({**names, "more": more + ended})
            )
    return made
