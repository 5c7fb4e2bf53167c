"""The tables of a `SQLiteQueue`, and the indexes by which every step of it stays O(log n).

`tasks.seq` is the order of putting in. What a task's state asks for is in a partial index of its own, so that a queue
of a million costs nothing to those that are scheduled, and a million that have ended nothing to those in the queue:

- `ready`: what may be claimed, by queue (a paused one is passed over whole), in the order of P4;
- `scheduled`: by time;
- `waiting`: by key of the limit, those first that wait for no other task (`pending` = 0);
- `places`: those in the queue that hold a place of a limit, the last first;
- `running`: by owner, and when the lease ends;
- `ended`: by state, to be counted and forgotten.

A row of `links` says that a child waits for a parent; it goes when one of the two ends. `special` has the bits below:
what has none of them needs no second look when it ends. `given`: its id is in the index `ids`, see `_sqlite_ids`.
"""

from __future__ import annotations

from typing import Final

#: "Hive" in ASCII: how the file says whose it is (PRAGMA application_id), and which shape it has (user_version).
APPLICATION_ID: Final = 0x48697665
VERSION: Final = 2

UNIQUE: Final = 1
RATED: Final = 2
CHILD: Final = 4
DESPITE: Final = 8
PARENT: Final = 16

SCHEMA: Final = (
    """
    CREATE TABLE tasks (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        state TEXT NOT NULL,
        queue TEXT NOT NULL,
        name TEXT NOT NULL,
        priority INTEGER NOT NULL,
        data TEXT,
        due REAL NOT NULL,
        asked REAL,
        options TEXT,
        created REAL NOT NULL,
        special INTEGER NOT NULL DEFAULT 0,
        limit_key TEXT,
        limit_most INTEGER,
        pending INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER,
        worker TEXT,
        expires REAL,
        started REAL,
        ended REAL,
        result TEXT,
        failure TEXT,
        progress TEXT,
        given INTEGER NOT NULL DEFAULT 1
    )
    """,
    "CREATE UNIQUE INDEX ids ON tasks (id) WHERE given",
    "CREATE INDEX ready ON tasks (queue, priority DESC, seq) WHERE state = 'queued'",
    "CREATE INDEX scheduled ON tasks (due, queue) WHERE state = 'scheduled'",
    "CREATE INDEX waiting ON tasks (pending, limit_key, queue, priority DESC, seq) WHERE state = 'waiting'",
    "CREATE INDEX places ON tasks (limit_key, priority, seq DESC) WHERE state = 'queued' AND limit_key IS NOT NULL",
    "CREATE INDEX running ON tasks (worker, expires, queue) WHERE state = 'running'",
    "CREATE INDEX ended ON tasks (state, queue, ended) WHERE ended IS NOT NULL",
    "CREATE TABLE links (parent INTEGER, child INTEGER, PRIMARY KEY (parent, child)) WITHOUT ROWID",
    "CREATE TABLE limits (key TEXT PRIMARY KEY, held INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE rates (
        key TEXT PRIMARY KEY, most INTEGER, seconds REAL, full_from REAL, full_until REAL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE starts (key TEXT NOT NULL, time REAL NOT NULL)",
    "CREATE INDEX starts_of_key ON starts (key, time)",
    "CREATE TABLE keys (key TEXT PRIMARY KEY, id TEXT NOT NULL, until REAL) WITHOUT ROWID",
    "CREATE INDEX keys_by_time ON keys (until) WHERE until IS NOT NULL",
    "CREATE TABLE paused (queue TEXT PRIMARY KEY) WITHOUT ROWID",
    """
    CREATE TABLE claimants (
        identity TEXT PRIMARY KEY, pid INTEGER NOT NULL, born REAL NOT NULL, boot TEXT NOT NULL, space TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE epochs (last INTEGER NOT NULL)",
    "INSERT INTO epochs VALUES (0)",
)

#: What makes a file of a former shape one of the next.
UPGRADES: Final = {
    1: (
        "ALTER TABLE tasks ADD COLUMN given INTEGER NOT NULL DEFAULT 1",
        "DROP INDEX ids",
        "CREATE UNIQUE INDEX ids ON tasks (id) WHERE given",
    ),
}

INSERT: Final = (
    "INSERT INTO tasks (id, state, queue, name, priority, data, due, asked, options, created,"
    " special, limit_key, limit_most, pending) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_NEW: Final = INSERT + " ON CONFLICT (id) WHERE given DO NOTHING"
INSERT_CALL: Final = (
    "INSERT INTO tasks (seq, id, state, queue, name, priority, data, due, created, given)"
    " VALUES (?, ?, 'queued', ?, ?, 0, ?, ?, ?, 0)"
)
LAST: Final = "SELECT coalesce(max(seq), 0) FROM tasks"

# The queues that have something to claim and are not paused: from one name in the index to the next, not row by row.
READY_QUEUES: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(queue) FROM tasks WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT min(queue) FROM tasks WHERE state = 'queued' AND queue > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL AND name NOT IN (SELECT queue FROM paused)
"""
READY: Final = (
    "SELECT seq, priority FROM tasks WHERE state = 'queued' AND queue = ? ORDER BY priority DESC, seq LIMIT ?"
)
CLAIM: Final = """
    UPDATE tasks SET state = 'running', worker = ?, epoch = ?, expires = ?, started = ?, attempts = attempts + 1
    WHERE seq IN (SELECT value FROM json_each(?))
    RETURNING seq, id, queue, name, priority, data, due, asked, options, attempts
"""
REGISTER: Final = """
    INSERT INTO claimants VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (identity) DO UPDATE SET pid = excluded.pid, born = excluded.born, boot = excluded.boot,
        space = excluded.space
    WHERE (pid, born, boot, space) IS NOT (excluded.pid, excluded.born, excluded.boot, excluded.space)
"""
# Each owner of running tasks, when the first of its leases ends, and who it is.
OWNERS: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(worker) FROM tasks WHERE state = 'running'
        UNION ALL
        SELECT (SELECT min(worker) FROM tasks WHERE state = 'running' AND worker > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT found.name, (SELECT min(expires) FROM tasks WHERE state = 'running' AND worker = found.name),
        pid, born, boot, space
    FROM found LEFT JOIN claimants ON identity = found.name WHERE found.name IS NOT NULL
"""
IDLE_CLAIMANTS: Final = """
    SELECT identity, pid, born, boot, space FROM claimants
    WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE state = 'running' AND worker = identity)
"""
NEXT_DUE: Final = "SELECT min(due) FROM tasks WHERE state = 'scheduled'"

# Of a key's waiting tasks, the queues they are in; those of paused queues are passed over.
WAITING_QUEUES: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(queue) FROM tasks WHERE state = 'waiting' AND pending = 0 AND limit_key = :key
        UNION ALL
        SELECT (SELECT min(queue) FROM tasks
                WHERE state = 'waiting' AND pending = 0 AND limit_key = :key AND queue > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL AND name NOT IN (SELECT queue FROM paused)
"""
# Each key of a limit for which tasks wait.
WAITING_KEYS: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(limit_key) FROM tasks WHERE state = 'waiting' AND pending = 0
        UNION ALL
        SELECT (SELECT min(limit_key) FROM tasks WHERE state = 'waiting' AND pending = 0 AND limit_key > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL
"""
ENDED_QUEUES: Final = """
    WITH RECURSIVE found (name) AS (
        SELECT min(queue) FROM tasks WHERE ended IS NOT NULL AND state = :state
        UNION ALL
        SELECT (SELECT min(queue) FROM tasks WHERE ended IS NOT NULL AND state = :state AND queue > found.name)
        FROM found WHERE found.name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL
"""

COUNT: Final = """
    SELECT queue, state, count(*) FROM tasks WHERE state = 'queued' GROUP BY queue
    UNION ALL SELECT queue, state, count(*) FROM tasks WHERE state = 'scheduled' GROUP BY queue
    UNION ALL SELECT queue, state, count(*) FROM tasks WHERE state = 'waiting' GROUP BY queue
    UNION ALL SELECT queue, state, count(*) FROM tasks WHERE state = 'running' GROUP BY queue
    UNION ALL SELECT queue, state, count(*) FROM tasks WHERE ended IS NOT NULL GROUP BY state, queue
"""

RECORD: Final = (
    "SELECT id, queue, name, priority, data, due, asked, options, attempts, state, created, started, ended,"
    " crashes, result, failure, progress, worker, cancel_requested FROM tasks"
)

FORGET: Final = """
    DELETE FROM tasks WHERE seq IN (
        SELECT seq FROM tasks WHERE ended IS NOT NULL AND state = ? AND queue = ? AND ended < ? LIMIT ?
    )
"""

#: Few tasks run, and those that failed are wanted often: these are found by their index; all others going back.
_INDEX_OF: Final = {"running": "INDEXED BY running", "dead": "INDEXED BY ended", "cancelled": "INDEXED BY ended"}


def listing(state: str | None, queue: str | None, name: str | None) -> str:
    """The newest tasks of which these are known. (A state is written out: so the partial indexes are of use.)"""
    where = ["1"]
    if state is not None:
        where.append(f"state = '{state}'")
    if state in ("done", "dead", "cancelled"):
        where.append("ended IS NOT NULL")
    where += [f"{what} = :{what}" for what, value in (("queue", queue), ("name", name)) if value is not None]
    how = _INDEX_OF.get(state or "", "NOT INDEXED")
    return f"{RECORD} {how} WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT :limit"
