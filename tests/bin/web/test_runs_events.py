"""Events of a run: each line exactly once, whatever happens to the file."""

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request

import pytest
from studio_server import SECONDS, studio_server
from written_runs import append, evaluation_line, text_of, training_line, write_run, write_status

from visionloop.bin.web.config import Limits
from visionloop.bin.web.problems import Problem
from visionloop.bin.web.runs import events as module
from visionloop.bin.web.runs.events import Tail
from visionloop.bin.web.runs.identity import run_id
from visionloop.bin.web.serve import CLOSING_SECONDS
from visionloop.engine.logging.run_log import cut_lines


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_status(folder)
    return folder


def take(run, cursor="0"):
    """Return ([(event, step or state)], cursor after them) of one poll."""
    tail = Tail(run, cursor)
    events = [(event, json.loads(data)) for _, event, data in tail.events()]
    return [(event, data.get("step", data.get("state"))) for event, data in events], tail.cursor


def steps_of(events):
    return [step for event, step in events if event == "metrics"]


def test_each_cursor_continues_after_its_line(run):
    append(run, *(training_line(step) for step in range(1, 6)))
    lines = [event for event in Tail(run).events() if event.event == "metrics"]
    assert [json.loads(event.data)["step"] for event in lines] == [1, 2, 3, 4, 5]
    for place, event in enumerate(lines, 1):
        for cursor in (event.id, event.id.partition("-")[0]):
            assert steps_of(take(run, cursor)[0]) == [1, 2, 3, 4, 5][place:]
    size = (run / "metrics.jsonl").stat().st_size
    assert lines[-1].id.startswith(f"{size}-")


def test_a_half_written_line_is_no_event_before_its_end(run):
    text = text_of(training_line(2))
    append(run, training_line(1), text[:50])
    events, cursor = take(run)
    assert steps_of(events) == [1]
    assert steps_of(take(run, cursor)[0]) == []
    append(run, text[50:])
    assert steps_of(take(run, cursor)[0]) == [2]


def test_lines_that_are_not_valid_are_passed_over(run):
    append(run, training_line(1), "no json\n", "\n", "[1]\n", '{"step": 1}\n', training_line(2))
    append(run, '{"step": 3, "kind": "train", "loss": NaN, "name": "<b>\u2028"}\n')
    events = Tail(run).events()
    assert [json.loads(event.data)["step"] for event in events[:-1]] == [1, 2, 3]
    assert json.loads(events[2].data)["loss"] is None
    assert all(event.data.isascii() and "\n" not in event.data for event in events)


@pytest.mark.parametrize("grown", [0, 1, 20])
def test_a_client_that_was_away_during_a_resume_is_told_to_reset(run, grown):
    append(run, *(training_line(step) for step in range(1, 11)))
    _, cursor = take(run)
    cut_lines(run / "metrics.jsonl", 7, 0)
    append(run, *(training_line(step) for step in range(8, 8 + grown)))
    events, after = take(run, cursor)
    assert events[0] == ("reset", None)
    assert steps_of(events) == list(range(1, 8 + grown))
    assert take(run, after)[0] == [("status", 0)]


def test_a_client_that_had_no_line_that_was_cut_is_not_reset(run):
    append(run, *(training_line(step) for step in range(1, 4)))
    _, cursor = take(run)
    append(run, *(training_line(step) for step in range(4, 9)))
    cut_lines(run / "metrics.jsonl", 5, 0)
    append(run, training_line(6))
    assert steps_of(take(run, cursor)[0]) == [4, 5, 6] and take(run, cursor)[0][0][0] == "metrics"


def test_a_cut_that_ends_at_another_line_of_the_same_offset_is_noticed(run):
    """The same length, other content: an offset alone could not tell."""
    append(run, *(training_line(step) for step in range(11, 15)))
    _, cursor = take(run)
    text = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(text.replace(b'"step": 14', b'"step": 13'))
    assert take(run, cursor)[0][0] == ("reset", None)


def test_a_run_without_lines_and_one_that_was_removed(run):
    assert take(run) == ([("status", 0)], "0")
    append(run, training_line(1))
    _, cursor = take(run)
    (run / "metrics.jsonl").unlink()
    assert take(run, cursor) == ([("reset", None), ("status", 0)], "0")


@pytest.mark.parametrize("cursor", ["", "-1", "x", "1-2", "1" * 16, "5-0000000g", "٣"])
def test_a_text_that_is_no_cursor_is_refused(run, cursor):
    with pytest.raises(Problem) as problem:
        Tail(run, cursor).events()
    assert problem.value.status == 422


def test_long_files_come_in_parts_of_whole_lines(run, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    append(run, *(training_line(step) for step in range(1, 101)))
    append(run, "x" * 5000 + "\n", training_line(101))
    tail, steps = Tail(run), []
    while not tail.at_end or not steps:
        part = [json.loads(e.data)["step"] for e in tail.events() if e.event == "metrics"]
        assert len(part) < 6
        steps += part
    assert steps == list(range(1, 102))


def test_a_status_is_an_event_when_it_changes_and_when_the_run_is_lost(run, monkeypatch):
    tail = Tail(run)

    def states():
        return [json.loads(event.data)["state"] for event in tail.events()]

    assert [states(), states()] == [["running"], []]
    write_status(run, step=5)
    assert [states(), states()] == [["running"], []]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert [states(), states()] == [["lost"], []]


def test_a_writer_and_resumes_at_random_lose_and_double_nothing(run):
    """A client that adds lines, clears at a reset and reconnects ends with the file's content."""
    chance = random.Random(0)
    done, seen, cursor = threading.Event(), [], "0"

    def write():
        step = 0
        for _ in range(400):
            if chance.random() < 0.05 and step:
                step -= chance.randrange(step)
                cut_lines(run / "metrics.jsonl", step, step)
            step += 1
            line = evaluation_line(step) if step % 7 == 0 else training_line(step)
            text = text_of(line | {"time": time.time()})
            append(run, text[:20])
            append(run, text[20:])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    tail = Tail(run)
    while True:
        is_last = done.is_set()
        if chance.random() < 0.3:
            tail = Tail(run, cursor)  # reconnects, perhaps to another server
        for event in tail.events():
            if event.event == "reset":
                seen.clear()
            elif event.event == "metrics":
                seen.append(json.loads(event.data))
            cursor = event.id
        if is_last and tail.at_end:
            break
    writer.join()
    assert seen == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_stream(studio, path, headers=()):
    request = urllib.request.Request(f"{studio.url}/api/v1{path}", headers=dict(headers))
    request.add_header("Authorization", f"Bearer {studio.token}")
    return urllib.request.urlopen(request, timeout=SECONDS)


def next_event(stream):
    """Return {field: value} of the next event; comments are passed over. None at the end."""
    fields = {}
    for line in stream:
        text = line.decode().rstrip("\n")
        if not text and fields:
            return fields
        if text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
    return None


def test_a_stream_sends_what_comes_resumes_by_its_last_id_and_ends_with_the_server(tmp_path):
    folder = write_run(tmp_path / "runs" / "a", points=3, state="running")
    address = f"/runs/{run_id(folder)}/events"
    with studio_server(tmp_path) as studio:
        with read_stream(studio, address) as stream:
            first = [next_event(stream) for _ in range(7)]
            append(folder, training_line(40))
            fresh = next_event(stream)
        assert [event["event"] for event in first] == ["metrics"] * 6 + ["status"]
        assert json.loads(fresh["data"])["step"] == 40
        append(folder, training_line(50))
        with read_stream(studio, f"{address}?cursor=0", {"Last-Event-ID": fresh["id"]}) as stream:
            assert json.loads(next_event(stream)["data"])["step"] == 50
        with read_stream(studio, "/events") as stream:
            before = json.loads(next_event(stream)["data"])
            write_status(folder, state="stopped")
            after = json.loads(next_event(stream)["data"])
            assert after["runs"] > before["runs"]
            began = time.monotonic()
            studio.process.terminate()
            assert next_event(stream) is None
            # by itself: after that time the server cancels what is left
            assert time.monotonic() - began < CLOSING_SECONDS
            studio.process.wait(SECONDS)


def test_too_many_streams_are_refused_and_a_closed_one_makes_room(tmp_path):
    most = Limits().event_streams
    with studio_server(tmp_path) as studio:
        streams = [read_stream(studio, "/events") for _ in range(most)]
        assert all(next_event(stream) for stream in streams)
        with pytest.raises(urllib.error.HTTPError) as refused:
            read_stream(studio, "/events")
        assert refused.value.code == 429
        assert json.load(refused.value)["code"] == "too_many_streams"
        for stream in streams:
            stream.close()
        end = time.monotonic() + SECONDS
        while True:
            try:
                read_stream(studio, "/events").close()
                break
            except urllib.error.HTTPError:
                assert time.monotonic() < end
                time.sleep(0.1)


def test_a_cursor_that_is_no_offset_is_a_422(tmp_path):
    folder = write_run(tmp_path / "runs" / os.fsdecode(b"caf\xe9"), points=1)
    with studio_server(tmp_path) as studio:
        address = f"/runs/{run_id(folder)}/events/poll"
        assert [event["event"] for event in studio.get(address)["events"]][-1] == "status"
        with pytest.raises(Exception, match="422"):
            studio.get(f"{address}?cursor=abc")
