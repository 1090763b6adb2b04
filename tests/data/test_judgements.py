"""The store of judgements: what is kept, what is refused, whose turn it is, and that nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from tests import ranking
from tunewright.data import judgement_database, judgement_turns
from tunewright.data.judgement_records import Judgement
from tunewright.data.judgements import Judgements
from tunewright.errors import DataError, MachineError, UsageError

HERE = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    with ranking.store(tmp_path / "judgements.db") as opened:
        yield opened


# ---- what is kept ----


def test_prompts_and_completions_come_back_in_their_order(store):
    first = store.prompts()[0]
    assert [prompt.text for prompt in store.prompts()] == [f"Question {n}?" for n in range(4)]
    assert (first.source, first.values) == ("prompts.jsonl:1", {"number": 0})
    assert [one.text[:8] for one in store.completions(first.id)] == ["Answer a", "Answer b", "Answer c"]
    assert len(store.completions()) == 12


def test_a_prompt_is_there_once_and_so_is_a_completion_of_two_models(store):
    prompt, (a, *_) = ranking.ids(store)
    assert store.add_prompt("Question 0?", "other.jsonl:9", values={"number": 7}) == prompt
    assert len(store.prompts()) == 4
    assert store.prompt(prompt).values == {"number": 0}
    assert store.add_completion(prompt, "Answer a to 0", "third", {"draw": 0}) == a
    assert len(store.completions(prompt)) == 3
    assert {one.name for one in store.origins() if one.completion_id == a} == {"gemma", "third"}


def test_the_same_text_under_two_prompts_is_two_completions(store):
    (one, _), (other, _) = ranking.ids(store, 0), ranking.ids(store, 1)
    assert store.add_completion(one, "Yes.", "x") != store.add_completion(other, "Yes.", "x")


def test_a_draw_is_known_by_its_settings_in_any_order(store):
    prompt, _ = ranking.ids(store)
    store.add_completion(prompt, "Drawn.", "gemma", {"temperature": 1.0, "draw": 9})
    assert store.has_drawn(prompt, "gemma", {"draw": 9, "temperature": 1.0})
    assert not store.has_drawn(prompt, "gemma", {"draw": 8, "temperature": 1.0})
    assert not store.has_drawn(prompt, "other", {"draw": 9, "temperature": 1.0})


def test_conversations_and_odd_texts_survive(tmp_path):
    talk = [{"role": "user", "content": "Tea?\n\0 <script>alert(1)</script> \u202e"}]
    with Judgements.open(tmp_path / "j.db") as store:
        prompt = store.add_prompt(
            talk, "x:1", values={"when": __import__("datetime").date(2026, 1, 2), "n": float("nan")}
        )
        store.add_completion(prompt, "'); drop table prompt; --", "x")
        store.add_completion(prompt, "é" * 50_000, "x", {"draw": 1})
    with Judgements.open(tmp_path / "j.db", create=False) as store:
        assert store.prompts()[0].text == talk
        assert store.prompts()[0].values == {"when": "2026-01-02", "n": None}
        assert [len(one.text) for one in store.completions()] == [25, 50_000]


def test_half_a_character_is_a_sentence(store):
    with pytest.raises(DataError, match="half a character"):
        store.add_prompt("\ud83d", "x:1")


def test_a_completion_knows_nothing_of_its_origin(store):
    """What a page gets can't show what it doesn't have."""
    assert {name for one in store.completions() for name in vars(one)} == {"id", "prompt_id", "text"}


def test_the_schema_is_part_of_the_package():
    assert "create table judgement" in (resources.files("tunewright.data") / "schema.sql").read_text(encoding="utf-8")


@pytest.mark.skipif(not (HERE / "pyproject.toml").exists(), reason="not in a checkout")
def test_the_wheel_holds_the_schema(tmp_path):
    builder = pytest.importorskip("hatchling.builders.wheel")
    [wheel] = builder.WheelBuilder(str(HERE)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        assert "tunewright/data/schema.sql" in opened.namelist()


# ---- judgements ----


def test_a_judgement_comes_back_as_it_was_given(store):
    prompt, (a, b, c) = ranking.ids(store)
    id = store.record(prompt, "  Ann   Lee ", [c, a, b], [[b], [a, c]], (), "Close.", 12.5)
    [found] = store.judgements()
    expected = Judgement(id, prompt, "Ann Lee", (c, a, b), ((b,), (a, c)), (), "Close.", 12.5, found.created)
    assert found == expected
    assert found.created.endswith("+00:00")


@pytest.mark.parametrize("flag", ["skip", "both_bad"])
def test_no_ranking_needs_a_flag(store, flag):
    prompt, (a, b, c) = ranking.ids(store)
    with pytest.raises(UsageError, match="the ranking holds 0 completions; expected each of the 3 shown, once"):
        store.record(prompt, "ann", [a, b, c], [])
    store.record(prompt, "ann", [a, b, c], [], [flag])
    assert (store.judgements()[0].skipped, store.judgements()[0].all_bad) == (flag == "skip", flag == "both_bad")


def refusals(prompt: str, a: str, b: str, foreign: str):
    return {
        "there is no prompt": ("nothing", [a, b], [[a], [b]], ()),
        "is no completion of prompt": (prompt, [a, foreign], [[a], [foreign]], ()),
        "holds 1 completions": (prompt, [a, b], [[a]], ()),
        "holds 3 completions": (prompt, [a, b], [[a], [b, a]], ()),
        "holds 2 completions": (prompt, [a, b], [[a], [], [b]], ()),
        "shown holds a completion twice": (prompt, [a, a], [[a]], ()),
        "or none": (prompt, [], [], ("skip",)),
        "one completion can't be ranked": (prompt, [a], [[a]], ()),
        "has no ranking": (prompt, [a, b], [[a], [b]], ("skip",)),
        "is no flag": (prompt, [a, b], [[a], [b]], ("boring",)),
    }


@pytest.mark.parametrize("words", list(refusals("", "", "", "")))
def test_what_cannot_be_judged(store, words):
    prompt, (a, b, _) = ranking.ids(store)
    given, shown, order, flags = refusals(prompt, a, b, ranking.ids(store, 1)[1][0])[words]
    with pytest.raises(UsageError, match=words):
        store.record(given, "ann", shown, order, flags)
    assert store.judgements(withdrawn=True) == []


@pytest.mark.parametrize("name", ["", "  ", "a" * 81, "a\0b", "\ud800"])
def test_a_name_is_printable_and_short(store, name):
    with pytest.raises(UsageError, match="the annotator's name"):
        store.next_task(name)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_seconds_are_a_number(store, seconds):
    with pytest.raises(UsageError, match="seconds"):
        ranking.judge(store, "ann", 0, "a>b>c", seconds=seconds)


def test_sent_twice_is_kept_once_and_a_second_opinion_replaces_the_first(store):
    first = ranking.judge(store, "ann", 0, "a>b>c")
    assert ranking.judge(store, "ann", 0, "a>b>c") == first
    second = ranking.judge(store, "ann", 0, "b>a>c")
    assert [one.id for one in store.judgements()] == [second]
    assert [one.withdrawn is None for one in store.judgements(withdrawn=True)] == [False, True]
    assert store.judgement_of(ranking.ids(store)[0], "ann").id == second


def test_another_person_replaces_nobody(store):
    ranking.judge(store, "ann", 0, "a>b>c")
    ranking.judge(store, "bob", 0, "c>b>a")
    assert len(store.judgements()) == 2


def test_undo_withdraws_the_newest_of_this_person_and_gives_its_prompt_again(store):
    ranking.judge(store, "ann", 0, "a>b>c")
    ranking.judge(store, "ann", 1, "a>b>c")
    ranking.judge(store, "bob", 2, "a>b>c")
    prompt, _ = ranking.ids(store, 1)
    assert store.undo("ann") == prompt
    assert store.next_task("ann").id == prompt
    assert len(store.judgements()) == 2
    assert len(store.judgements(withdrawn=True)) == 3
    assert store.undo("ann") == ranking.ids(store, 0)[0]
    assert store.undo("ann") is None
    assert [one.annotator for one in store.judgements()] == ["bob"]


# ---- whose turn it is ----


def everything(store: Judgements, who: str, overlap: float = 0.0, order: str = "a>b>c") -> list[int]:
    """Judge until nothing is left; numbers of the prompts."""
    numbers = [prompt.id for prompt in store.prompts()]
    done: list[int] = []
    while (task := store.next_task(who, overlap)) is not None:
        done.append(numbers.index(task.id))
        ranking.judge(store, who, done[-1], order)
        assert len(done) <= len(numbers)
    return done


def test_one_person_gets_every_prompt_once_in_order(store):
    assert store.next_task("ann") == store.next_task("ann")
    assert everything(store, "ann") == [0, 1, 2, 3]
    assert store.next_task("ann") is None


def test_two_people_at_once_get_different_prompts_and_share_them(store):
    numbers = [prompt.id for prompt in store.prompts()]
    done: dict[str, list[int]] = {"ann": [], "bob": []}
    for turn in range(4):
        for who in done if turn < 2 else ():
            task = store.next_task(who)
            done[who].append(numbers.index(task.id))
        for who in done if turn < 2 else ():
            ranking.judge(store, who, done[who][-1], "a>b>c")
    assert sorted(done["ann"] + done["bob"]) == [0, 1, 2, 3]
    assert store.next_task("ann") is None


def test_what_somebody_looks_at_is_free_again_after_a_while(store, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(judgement_turns.time, "time", lambda: clock[0])
    first = store.next_task("ann").id
    assert store.next_task("bob").id != first
    clock[0] += judgement_turns.CLAIM_SECONDS + 1
    assert store.next_task("cem").id == first


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_the_share_that_two_people_judge(tmp_path, overlap):
    with ranking.store(tmp_path / "j.db", prompts=40, completions=2) as store:
        numbers = [prompt.id for prompt in store.prompts()]
        who, waiting = ["ann", "bob"], 0
        for turn in range(200):
            task = store.next_task(who[turn % 2], overlap)
            waiting = 0 if task else waiting + 1
            if waiting == 2:
                break
            if task:
                ranking.judge(store, who[turn % 2], numbers.index(task.id), "a>b")
        progress = store.progress("ann", overlap)
        assert (progress.prompts_judged, progress.prompts_judged_twice) == (40, round(40 * overlap))
        assert progress.left == 0


def test_prompts_for_two_are_spread_and_not_left_for_the_end(tmp_path):
    with ranking.store(tmp_path / "j.db", prompts=40, completions=2) as store:
        for number in range(20):
            ranking.judge(store, "ann", number, "a>b")
        numbers = [prompt.id for prompt in store.prompts()]
        second = []
        for _ in range(10):
            number = numbers.index(store.next_task("bob", 0.2).id)
            second.append(number < 20)
            ranking.judge(store, "bob", number, "b>a")
        assert second == [False, False, False, False, True] * 2


def test_nobody_is_the_third_to_judge_a_prompt(store):
    for number in (0, 1):
        for who in ("ann", "bob"):
            ranking.judge(store, who, number, "a>b>c")
    assert everything(store, "cem", 1.0) == [2, 3]


def test_a_skipped_prompt_goes_to_somebody_else(store):
    ranking.judge(store, "ann", 0, "", flags=["skip"])
    assert store.next_task("ann").id == ranking.ids(store, 1)[0]
    assert store.next_task("bob").id == ranking.ids(store, 0)[0]
    assert (store.progress("ann").judged, store.progress("ann").skipped, store.progress("ann").left) == (0, 1, 3)


def test_a_prompt_needs_two_completions(tmp_path):
    with Judgements.open(tmp_path / "j.db") as store:
        store.add_completion(store.add_prompt("One?", "x:1"), "One.", "x")
        assert store.next_task("ann") is None
        assert store.progress("ann").prompts == 0


def test_progress_and_pace(store):
    for number, seconds in enumerate((4.0, 10.0, 6.0)):
        ranking.judge(store, "ann", number, "a>b>c", seconds=seconds)
    ranking.judge(store, "bob", 3, "a>b>c", seconds=99.0)
    progress = store.progress("ann")
    assert (progress.judged, progress.left, progress.prompts, progress.prompts_judged) == (3, 0, 4, 4)
    assert progress.seconds_per_judgement == 6.0
    assert store.progress("new").seconds_per_judgement is None


# ---- written by people ----


def test_demonstrations_are_kept_replaced_and_undone(store):
    prompt, (a, *_) = ranking.ids(store)
    assert store.next_to_write("ann").id == prompt
    store.write_demonstration(prompt, "ann", "My own.", based_on=a)
    store.write_demonstration(prompt, "ann", "My own, better.")
    [found] = store.demonstrations()
    assert (found.text, found.based_on, found.annotator) == ("My own, better.", None, "ann")
    assert store.next_to_write("ann").id == ranking.ids(store, 1)[0]
    assert store.next_to_write("bob").id == ranking.ids(store, 2)[0], "fewest first, and not what ann looks at"
    assert store.progress("ann").written == 1
    assert store.undo_demonstration("ann") == prompt
    assert store.next_to_write("ann").id == prompt
    assert store.demonstrations() == []


def test_an_empty_demonstration_and_a_foreign_correction(store):
    prompt, _ = ranking.ids(store)
    with pytest.raises(UsageError, match="is empty"):
        store.write_demonstration(prompt, "ann", " \n")
    with pytest.raises(UsageError, match="is no completion of prompt"):
        store.write_demonstration(prompt, "ann", "x", based_on=ranking.ids(store, 1)[1][0])


# ---- the file ----


def test_what_is_no_store_is_refused_in_a_line(tmp_path):
    text, other, folder = tmp_path / "notes.txt", tmp_path / "other.db", tmp_path / "folder"
    text.write_text("Not a database at all, but a text that is long enough to be read as one. " * 50)
    sqlite3.connect(other).execute("create table cats (name)").connection.close()
    folder.mkdir()
    for path, error, words in (
        (text, DataError, "is no database of judgements"),
        (other, DataError, "is a database, but not one of judgements"),
        (folder, UsageError, "is a folder"),
    ):
        with pytest.raises(error, match=words):
            Judgements.open(path)
    with pytest.raises(UsageError, match="there is no such file"):
        Judgements.open(tmp_path / "nowhere.db", create=False)
    assert not (tmp_path / "nowhere.db").exists()


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "j.db"
    ranking.store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"pragma user_version = {len(judgement_database.SCRIPTS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"newer tunewright \(version 2; this one knows 1\); update"):
        Judgements.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "trap",
    [
        "create trigger t after insert on judgement begin delete from judgement; end",
        "create view v as select * from judgement",
    ],
)
def test_a_strangers_file_that_does_more_than_hold_data_is_refused(tmp_path, trap):
    path = tmp_path / "j.db"
    ranking.store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(trap)
    connection.close()
    with pytest.raises(DataError, match="holds triggers or views"):
        Judgements.open(path)


def test_an_older_store_is_brought_up_to_date_and_keeps_everything(tmp_path, monkeypatch):
    path = tmp_path / "j.db"
    with ranking.store(path) as store:
        ranking.judge(store, "ann", 0, "a>b>c")
    script = resources.files("tunewright.data") / "schema.sql"
    later = tmp_path / "later.sql"
    later.write_text("alter table judgement add column mood text;\ncreate table extra (x);\n")
    monkeypatch.setattr(judgement_database, "SCRIPTS", ("schema.sql", "later.sql"))
    monkeypatch.setattr(judgement_database.resources, "files", lambda _: _Scripts(script, later))
    with Database(path) as connection:
        assert connection.execute("select count(*), mood from judgement").fetchone()[:] == (1, None)
        assert connection.execute("pragma user_version").fetchone()[0] == 2


class _Scripts:
    def __init__(self, first, later):
        self.paths = {"schema.sql": first, "later.sql": later}

    def __truediv__(self, name):
        return self.paths[name]


class Database:
    """The opened file's own connection."""

    def __init__(self, path: Path) -> None:
        self.opened = judgement_database.Database.open(path, create=False)

    def __enter__(self):
        return self.opened._connection

    def __exit__(self, *_):
        self.opened.close()


def test_a_failed_migration_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "j.db"
    ranking.store(path).close()
    later = tmp_path / "later.sql"
    later.write_text("create table extra (x);\ncreate table extra (x);\n")
    script = resources.files("tunewright.data") / "schema.sql"
    monkeypatch.setattr(judgement_database, "SCRIPTS", ("schema.sql", "later.sql"))
    monkeypatch.setattr(judgement_database.resources, "files", lambda _: _Scripts(script, later))
    with pytest.raises(sqlite3.OperationalError):
        Judgements.open(path)
    monkeypatch.undo()
    Judgements.open(path).close()


def test_what_makes_it_safe_is_switched_on(store):
    connection = store.database._connection
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "user_version": 1}
    found = {name: connection.execute(f"pragma {name}").fetchone()[0] for name in pragmas}
    assert found == pragmas
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("insert into completion (id, prompt_id, text) values ('x', 'nobody', '1')")


def test_a_backup_is_a_whole_store_and_never_replaces_a_file(store, tmp_path):
    ranking.judge(store, "ann", 0, "a>b>c")
    target = tmp_path / "backup.db"
    store.backup(target)
    with Judgements.open(target, create=False) as copy:
        assert copy.judgements() == store.judgements()
        assert copy.prompts() == store.prompts()
    with pytest.raises(UsageError, match="is there already"):
        store.backup(target)
    with pytest.raises(MachineError):
        store.backup(tmp_path / "nowhere" / "backup.db")
    assert sorted(p.name for p in tmp_path.glob("*back*")) == ["backup.db"]


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "j.db"
    with ranking.store(path, prompts=200) as store:
        store.database._connection.execute("pragma wal_checkpoint(truncate)")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"), Judgements.open(path) as store:
        store.prompts()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_cannot_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(MachineError, match="can't be used"):
        Judgements.open(folder / "j.db")


# ---- many at once, and an end at any moment ----


def test_threads_of_one_server_lose_nothing(store):
    """Each records its own judgement of every prompt, undoes one, and does it again."""
    failures: list[BaseException] = []

    def work(who: str) -> None:
        try:
            for number in range(4):
                ranking.judge(store, who, number, "a>b>c")
            store.undo(who)
            ranking.judge(store, who, 3, "b>a>c")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"person {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.judgements()) == 32
    assert len(store.judgements(withdrawn=True)) == 40


_WORKER = """
import sys
from tests import ranking
from tunewright.data.judgements import Judgements
with Judgements.open(sys.argv[1], create=False) as store:
    while (task := store.next_task(sys.argv[2])) is not None:
        number = [prompt.id for prompt in store.prompts()].index(task.id)
        print(number, ranking.judge(store, sys.argv[2], number, "a>b>c"), flush=True)
    if sys.argv[3:]:
        sys.stdin.read()
"""


def worker(path: Path, who: str, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE / "src"), str(HERE)])}
    command = [sys.executable, "-c", _WORKER, str(path), who, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment)


def test_processes_share_the_work_and_judge_nothing_twice(tmp_path):
    path = tmp_path / "j.db"
    ranking.store(path, prompts=30).close()
    workers = [worker(path, who) for who in ("ann", "bob", "cem")]
    said = [one.communicate(timeout=120)[0] for one in workers]
    assert all(one.returncode == 0 for one in workers)
    numbers = [int(line.split()[0]) for text in said for line in text.splitlines()]
    assert sorted(numbers) == list(range(30))


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "j.db"
    ranking.store(path, prompts=300).close()
    process = worker(path, "ann")
    said = [process.stdout.readline() for _ in range(25)]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0]
    acknowledged = [int(line.split()[1]) for line in [*said, *rest.splitlines()] if len(line.split()) == 2]
    with Judgements.open(path, create=False) as store:
        kept = {one.id for one in store.judgements()}
        assert set(acknowledged) <= kept
        assert len(kept) <= len(acknowledged) + 1, "at most the one whose answer was under way"
        assert store.database._connection.execute("pragma integrity_check").fetchone()[0] == "ok"


def test_a_file_that_is_being_made_twice_at_once(tmp_path):
    """Both find it empty; one makes it, the other waits and finds it made."""
    path, failures = tmp_path / "j.db", []

    def work() -> None:
        try:
            Judgements.open(path).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_together_is_all_or_nothing(store):
    with pytest.raises(RuntimeError), store.together():
        ranking.judge(store, "ann", 0, "a>b>c")
        store.add_prompt("New?", "x:1")
        raise RuntimeError
    assert store.judgements() == []
    assert len(store.prompts()) == 4
