"""Promises of `queue_command.py` and `queue_format.py`: what is told of the file of a queue, and done to it."""

import contextlib
import json
import re
import sqlite3
import time
import typing

import pytest

from hive_task import cli, queue_command, queue_format
from hive_task.background import Failure, Limit, Rate, SQLiteQueue, Task
from hive_task.background.tasks import DEAD, DEFAULT_QUEUE, ENDED, STATES

FAILURE = Failure("ValueError", "no [red]such\x1b[2J thing\nat all", 'Traceback:\n  File "shop.py", line 3\nValueError')


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    return str(tmp_path / "queue.db")


@pytest.fixture
def source(path):
    with contextlib.closing(SQLiteQueue(path)) as source:
        yield source


def hive(capsys, *arguments):
    """The exit code of `hive-task queue ...`, and what it printed."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["queue", *arguments])
    shown, told = capsys.readouterr()
    return ended.value.code or 0, shown, told


def good(capsys, *arguments):
    code, shown, told = hive(capsys, *arguments)
    assert (code, told) == (0, "")
    return shown


def good_json(capsys, *arguments):
    shown = good(capsys, *arguments, "--json")
    assert shown.count("\n") == 1
    return json.loads(shown)


def rows(shown):
    head, *lines = [re.split(r" {2,}", line.strip()) for line in shown.splitlines()]
    return head, lines


def end(source, id, **how):
    """Take the task, which must be the next, and let it end."""
    task = source.dequeue_task()
    assert task.id == id
    assert source.fail_task(task, **how) if "failure" in how else source.complete_task(task, **how)
    return id


def dead(source, **options):
    return end(source, source.enqueue_task(Task("order", **options)), failure=FAILURE)


def done(source, **options):
    return end(source, source.enqueue_task(Task("order", **options)), result={"sum": 3})


def state(source, id):
    return source.find_task(id).state


# ---------------------------------------------------------------------------------------------- looking


def test_stats_count_by_queue_and_state(capsys, path, source):
    done(source)
    dead(source, queue="mail")
    source.enqueue_task(Task("order"))
    source.schedule_task(time.time() + 1000, Task("order"))
    source.pause_queue("empty")
    source.pause_queue("mail")
    head, lines = rows(good(capsys, "stats", path))
    assert head == ["QUEUE", *(name.upper() for name in STATES)]
    assert lines == [
        ["default", "1", "0", "1", "0", "1", "0", "0"],
        ["empty", *"0000000", "paused"],
        ["mail", *"0000010", "paused"],
        ["(all)", *"1010110"],
    ]
    told = good_json(capsys, "stats", path)
    nothing = dict.fromkeys(STATES, 0)
    assert told == {
        "queues": {
            DEFAULT_QUEUE: {"paused": False, **nothing, "scheduled": 1, "queued": 1, "done": 1},
            "empty": {"paused": True, **nothing},
            "mail": {"paused": True, **nothing, "dead": 1},
        },
        "total": {**nothing, "scheduled": 1, "queued": 1, "done": 1, "dead": 1},
    }


def test_stats_and_list_of_an_empty_queue(capsys, path, source):
    assert good(capsys, "stats", path) == "There are no tasks.\n"
    assert good(capsys, "list", path) == "There are no such tasks.\n"
    assert good_json(capsys, "list", path) == {"tasks": []}
    assert good_json(capsys, "stats", path) == {"queues": {}, "total": dict.fromkeys(STATES, 0)}


def test_list_shows_the_newest_first_and_what_matters_of_each(capsys, path, source):
    broken = dead(source, priority=7, queue="mail")
    source.schedule_task(time.time() + 1000.9, Task("remind", id="reminder of Monday"))
    running = source.enqueue_task(Task("count"))
    assert source.dequeue_task().id == running
    head, lines = rows(good(capsys, "list", path))
    assert head == ["ID", "NAME", "QUEUE", "STATE", "WHEN", "PRIORITY", "ATTEMPTS", "FAILURE"]
    assert lines[0][:4] == [running[:16], "count", "default", "running"]
    assert lines[0][4].startswith("for ")
    assert lines[1] == ["reminder of Monday", "remind", "default", "scheduled", "in 16 min 41 s", "0", "0"]
    assert lines[2][:4] == [broken[:16], "order", "mail", "dead"]
    assert lines[2][4].endswith(" ago")
    assert lines[2][5:] == ["7", "1", "ValueError: no [red]such?[2J thing at all"]


def test_list_chooses(capsys, path, source):
    ids = [source.enqueue_task(Task(f"task{number % 2}", queue=f"queue{number // 4}")) for number in range(8)]
    source.cancel_task(ids[0])

    def listed(*options):
        told = good_json(capsys, "list", path, *options)["tasks"]
        return [ids.index(one["id"]) for one in told]

    assert listed() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert listed("--state", "cancelled") == [0]
    assert listed("--queue", "queue1", "--name", "task1") == [7, 5]
    assert listed("--limit", "2") == [7, 6]
    assert listed("--queue", "no such") == []


def test_on_a_narrow_screen_a_list_leaves_out_what_matters_least(capsys, path, source, monkeypatch):
    dead(source, queue="a queue of a long name, of a very long name")
    for width in (30, 50, 80, 110, 150):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = good(capsys, "list", path)
        assert max(map(len, shown.splitlines())) <= width
        assert {"ID", "NAME", "STATE"} <= set(shown.split())
        assert ("PRIORITY" in shown) is (width >= 110)
        assert max(map(len, good(capsys, "stats", path).splitlines())) <= max(width, 80)


KEYS = (
    *("id", "name", "queue", "state", "priority", "data", "created", "due", "started", "ended", "attempts", "crashes"),
    *("retries", "time_limit", "unique", "unique_for", "limit", "rate", "after", "despite_failure", "worker"),
    *("cancel_requested", "progress", "result", "failure"),
)


def test_the_json_of_a_task_has_always_the_same_keys(capsys, path, source):
    first = done(source)
    task = Task(
        "order",
        {"who": "ann"},
        queue="mail",
        priority=2,
        due=time.time() + 1000,
        retries=3,
        time_limit=2.5,
        unique="key",
        unique_for=10.0,
        limit=Limit("one", 1),
        rate=Rate("some", 5, 60.0),
        after=(first,),
        despite_failure=True,
    )
    source.enqueue_tasks([task])
    told = good_json(capsys, "show", path, task.id)
    assert tuple(told) == KEYS
    for key in ("queue", "priority", "retries", "time_limit", "unique", "unique_for", "despite_failure", "data"):
        assert told[key] == getattr(task, key)
    assert told["limit"] == {"key": "one", "most": 1}
    assert told["rate"] == {"key": "some", "most": 5, "seconds": 60.0}
    assert told["after"] == [first]
    assert (told["state"], told["result"], told["failure"]) == ("scheduled", None, None)
    assert abs(told["due"] - task.due) < 0.001
    broken = good_json(capsys, "show", path, dead(source))
    assert tuple(broken) == KEYS
    assert broken["failure"] == FAILURE._asdict()
    (same, *_) = good_json(capsys, "list", path, "--state", "dead")["tasks"]
    assert same == broken


def test_show_tells_all_that_is_known(capsys, path, source):
    first = done(source, data=["a", {"b": None}], limit=("one", 1))
    shown = good(capsys, "show", path, first)
    assert re.search(rf"^id +{first}$", shown, re.MULTILINE)
    assert re.search(r"^state +done$", shown, re.MULTILINE)
    assert re.search(r'^data +\["a", {"b": null}\]$', shown, re.MULTILINE)
    assert re.search(r'^result +{"sum": 3}$', shown, re.MULTILINE)
    assert re.search(r'^limit +{"key": "one", "most": 1}$', shown, re.MULTILINE)
    for what in ("created", "due", "started", "ended"):
        moment = re.search(rf"^{what} +(\d+-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d) \(.* ago\)$", shown, re.MULTILINE)
        assert moment, f"{what} has its zone"
    assert "failure" not in shown
    shown = good(capsys, "show", path, dead(source, retries=0))
    assert re.search(r"^failure +ValueError: no \[red\]such\?\[2J thing\n +at all$", shown, re.MULTILINE)
    assert 'Traceback:\n  File "shop.py", line 3\nValueError\n' in shown, "line by line, as it was"
    assert re.search(r"^attempts +1 \(may be tried again 0 times\)$", shown, re.MULTILINE)
    assert "result" not in shown


def test_times_have_the_zone_of_this_machine(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert queue_format.readable(1_900_000_000.0) == "2030-03-17 23:31:40+05:45"
        assert queue_format.readable(1e300).endswith(" s after 1970")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_beginning_of_an_id_does_if_only_one_begins_so(capsys, path, source):
    for id in ("abcd1", "abcd2", "abcd", "éfgh€1", "abc"):
        source.enqueue_task(Task("order", id=id))
    assert good_json(capsys, "show", path, "abcd1")["id"] == "abcd1"
    assert good_json(capsys, "show", path, "abcd")["id"] == "abcd", "one that is all of an id"
    assert good_json(capsys, "show", path, "abc")["id"] == "abc", "how ever short"
    assert good_json(capsys, "show", path, "éfgh")["id"] == "éfgh€1"
    assert good_json(capsys, "show", path, "éfgh…")["id"] == "éfgh€1"
    for number in range(3, 10):
        source.enqueue_task(Task("order", id=f"abce{number}"))
    assert hive(capsys, "show", path, "abce") == (
        *(1, ""),
        "hive-task queue: there are several tasks whose ids begin with 'abce': abce3, abce4, abce5, ...\n",
    )
    assert hive(capsys, "show", path, "éfg") == (
        *(1, ""),
        "hive-task queue: there is no task 'éfg'; the beginning of an id needs 4 characters\n",
    )
    assert hive(capsys, "show", path, "éfgi") == (1, "", "hive-task queue: there is no task 'éfgi'\n")
    assert hive(capsys, "show", path, "éf%_", "--json") == (1, "", "hive-task queue: there is no task 'éf%_'\n")


# ---------------------------------------------------------------------------------------------- changing


def test_retry_takes_ids(capsys, path, source):
    first, second = dead(source), dead(source)
    assert good(capsys, "retry", path, first[:20], first[:20], second) == "2 tasks queued again.\n"
    assert [state(source, id) for id in (first, second)] == ["queued", "queued"]


def test_what_is_named_and_can_not_be_changed_is_told_with_code_1(capsys, path, source):
    broken, well = dead(source), done(source)
    code, shown, told = hive(capsys, "retry", path, broken, "nobody", well)
    assert (code, shown) == (1, "1 task queued again.\n")
    assert told.splitlines() == [
        "hive-task queue: there is no task 'nobody'",
        f"hive-task queue: {well[:16]}: it is done; only dead and cancelled tasks can be tried again",
    ]
    code, shown, told = hive(capsys, "cancel", path, broken, "nobody", well, "--json")
    assert code == 1
    assert json.loads(shown) == {
        "changed": [broken],
        "unchanged": [
            {"id": "nobody", "reason": "there is no task 'nobody'"},
            {"id": well, "reason": f"{well[:16]}: it is done; what has ended can't be cancelled"},
        ],
    }
    assert told.count("\n") == 2
    assert state(source, broken) == "cancelled"


def test_all_of_a_state_are_changed_in_batches(capsys, path, source, monkeypatch):
    monkeypatch.setattr(queue_command, "BATCH", 3)
    ids = [dead(source) for _ in range(8)]
    other = dead(source, queue="mail")
    assert good(capsys, "retry", path, "--state", "dead", "--queue", DEFAULT_QUEUE, "--all") == (
        "8 tasks queued again.\n"
    )
    assert {state(source, id) for id in ids} == {"queued"}
    assert state(source, other) == "dead"
    assert hive(capsys, "retry", path, "--state", "cancelled", "--all") == (1, "0 tasks queued again.\n", "")
    assert sorted(good_json(capsys, "cancel", path, "--state", "queued", "--all")["changed"]) == sorted(ids)
    assert {state(source, id) for id in ids} == {"cancelled"}


def test_all_is_each_once_also_if_they_stay_in_that_state(capsys, path, source, monkeypatch):
    """Those that run go on until they notice: without a memory, this would never end."""
    monkeypatch.setattr(queue_command, "BATCH", 3)
    ids = [source.enqueue_task(Task("order")) for _ in range(7)]
    assert len(source.dequeue_tasks(7)) == 7
    assert sorted(good_json(capsys, "cancel", path, "--state", "running", "--all")["changed"]) == sorted(ids)
    assert all(source.find_task(id).cancel_requested for id in ids)
    assert "asked for while it ran" in good(capsys, "show", path, ids[0])


def test_all_and_ids_exclude_each_other(capsys, path, source):
    one = dead(source)
    for wrong in (
        [],
        ["--all"],
        [one, "--all"],
        [one, "--state", "dead", "--all"],
        [one, "--state", "dead"],
        [one, "--queue", "default"],
        ["--state", "done", "--all"],
    ):
        code, shown, told = hive(capsys, "retry", path, *wrong)
        assert (code, shown) == (2, "")
        assert told
    assert state(source, one) == DEAD


def test_pause_and_resume(capsys, path, source):
    source.enqueue_task(Task("order"))
    assert good(capsys, "pause", path, "default", "mail", "mail") == "default is paused.\nmail is paused.\n"
    assert source.paused_queues() == {"default", "mail"}
    assert source.dequeue_task() is None
    assert good_json(capsys, "pause", path, "mail", "third") == {
        "changed": ["third"],
        "paused": ["default", "mail", "third"],
    }
    assert hive(capsys, "pause", path, "mail") == (1, "mail is paused already.\n", "")
    assert good(capsys, "resume", path, "default", "nobody") == (
        "default is not paused.\nnobody is not paused already.\n"
    )
    assert source.dequeue_task() is not None
    assert hive(capsys, "resume", path, "default")[0] == 1


def test_purge_forgets_what_has_ended(capsys, path, source):
    well, broken = done(source), dead(source)
    gone = source.enqueue_task(Task("order"))
    source.cancel_task(gone)
    waits = source.enqueue_task(Task("order"))
    assert hive(capsys, "purge", path, "--older-than", "1h") == (1, "0 tasks forgotten.\n", "")
    assert good(capsys, "purge", path) == "2 tasks forgotten.\n"
    assert [source.find_task(id) for id in (well, gone)] == [None, None]
    assert good_json(capsys, "purge", path, "--older-than", "0s", "--state", "dead", "--state", "done") == {"purged": 1}
    assert source.find_task(broken) is None
    assert state(source, waits) == "queued"
    assert hive(capsys, "purge", path, "--state", "queued")[0] == 2
    code, shown, told = hive(capsys, "purge", path, "--older-than", "yesterday")
    assert (code, shown) == (2, "")
    assert told == "hive-task queue: --older-than is a number of seconds, or such as 30m, 12h, 7d, not 'yesterday'\n"


def test_spans_of_time():
    assert [queue_command.seconds(span) for span in ("0", "1.5", "30s", "2m", "12h", "7d")] == [
        *(0, 1.5, 30, 120, 43200, 604800),
    ]


# ---------------------------------------------------------------------------------------------- wrong use

COMMANDS = [
    ["stats"],
    ["list"],
    ["show", "abcd"],
    ["retry", "abcd"],
    ["retry", "--state", "dead", "--all"],
    ["cancel", "abcd"],
    ["pause", "mail"],
    ["resume", "mail"],
    ["purge"],
]


@pytest.mark.parametrize(("name", "options"), [(name, options) for name, *options in COMMANDS])
def test_no_command_makes_a_file_or_takes_another_one(capsys, tmp_path, name, options):
    missing, empty, text, other = (tmp_path / one for one in ("missing", "empty", "text", "other.db"))
    empty.touch()
    text.write_text("This is a text.\n" * 100)
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE tasks (id)")
        connection.commit()
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    for path, reason in (
        (missing, "there is no such file"),
        (tmp_path, "this is no file"),
        (empty, "this file is empty, it is no queue"),
        (text, "not a database"),
        (other, "a database of some other program"),
    ):
        code, shown, told = hive(capsys, name, str(path), *options, *["--json"] * (path is text))
        assert (code, shown, told.count("\n")) == (2, "", 1)
        assert told.startswith("hive-task queue: ")
        assert str(path) in told
        assert reason in told
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_states_are_those_of_tasks():
    assert typing.get_args(queue_command.State) == queue_format.STATES == STATES
    assert {one.value for one in queue_command.Ended} == ENDED


def test_wrong_options_are_told_with_code_2(capsys, path, source):
    for wrong in (["list", path, "--state", "good"], ["list", path, "--limit", "0"], ["show", path], ["mend", path]):
        code, shown, told = hive(capsys, *wrong)
        assert (code, shown) == (2, "")
        assert told
