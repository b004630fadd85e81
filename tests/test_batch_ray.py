"""Archives on a cluster of Ray: two nodes on this machine, and a stand-in for Ray itself."""

import contextlib
import logging
import socket
import sys
from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from archive import make_archive
from test_batch import index_of, plain, results_of

import voxfast
from voxfast._version import version
from voxfast.batch import Cluster, TranscribeBatch, WorkersLostError, cluster, transcribe_files
from voxfast.batch.pools import Loss
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result, Settings
from voxfast.errors import InvalidOptionError, VoxfastError

# A stand-in


class FakeRayError(Exception):
    pass


class FakeTaskError(FakeRayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """Ray with room for some actors; their tasks are done when they are waited for."""

    exceptions = SimpleNamespace(RayError=FakeRayError, RayTaskError=FakeTaskError)

    def __init__(self, room: int) -> None:
        self.room, self.alive, self.most = room, 0, 0
        self.deaths: Counter[str] = Counter()  # what happens to tasks by their argument
        self.answer: object = version()

    def is_initialized(self) -> bool:
        return True

    def remote(self, **resources: object) -> object:
        self.resources = resources
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, threads: int) -> object:
        actor = SimpleNamespace(has_room=self.alive < self.room)
        self.alive += 1
        self.most = max(self.most, self.alive)
        actor.start = SimpleNamespace(remote=lambda _: _Task(actor, "start", self.answer))
        actor.transcribe = SimpleNamespace(
            remote=lambda recording: _Task(actor, recording.id, Result(recording))
        )
        return actor

    def wait(
        self, tasks: list["_Task"], num_returns: int, timeout: float
    ) -> tuple[list["_Task"], list["_Task"]]:
        return [task for task in tasks if task.actor.has_room], []

    def get(self, task: "_Task") -> object:
        if self.deaths[task.name]:
            self.deaths[task.name] -= 1
            raise FakeRayError("The node has died.\nIts address was 10.0.0.1")
        if isinstance(task.value, Exception):
            raise FakeTaskError(task.value)
        return task.value

    def kill(self, actor: object) -> None:
        self.alive -= 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 0.0}


class _Task:
    def __init__(self, actor: SimpleNamespace, name: str, value: object) -> None:
        self.actor, self.name, self.value = actor, name, value


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    fake = FakeRay(room=100)
    monkeypatch.setattr(cluster, "_ray", lambda: fake)
    return fake


def run(fake: FakeRay, count: int, actors: tuple[int, int]) -> tuple[list[int], list[object]]:
    """The number of actors at each step, and what came."""
    numbers, came = [], []
    queue = deque(Recording(str(i), f"/{i}.wav") for i in range(count))
    with cluster.ActorPool(Settings("m", ("json",)), Cluster(actors=actors, cpus=2)) as pool:
        pool.fill(queue)
        while queue or pool.is_busy:
            numbers.append(fake.alive)
            came += pool.wait()
            pool.fill(queue)
        numbers.append(fake.alive)
    assert fake.alive == 0
    return numbers, came


def test_actors_are_asked_for_as_there_is_work(fake):
    numbers, came = run(fake, 40, (1, 8))
    assert numbers[:6] == [1, 2, 4, 8, 8, 8]
    assert fake.most == 8
    assert numbers[-1] == 0  # let go as soon as there is no work for them
    assert sorted(result.recording.id for result in came) == sorted(map(str, range(40)))
    assert fake.resources["num_cpus"] == 2
    assert fake.resources["max_restarts"] == 0


def test_no_more_actors_than_recordings(fake):
    run(fake, 3, (8, 8))
    assert fake.most == 3


def test_actors_without_room_keep_nothing_waiting(fake):
    fake.room = 2
    _, came = run(fake, 9, (4, 8))
    assert len(came) == 9


def test_actors_that_vanish_are_losses(fake):
    fake.deaths = Counter({"3": 1, "start": 2})
    _, came = run(fake, 5, (1, 2))
    losses = [loss for loss in came if isinstance(loss, Loss)]
    assert [loss.recording.id for loss in losses] == ["3"]
    assert losses[0].reason == "its actor was lost: The node has died. Its address was 10.0.0.1"
    assert len(came) == 5


def test_actors_that_never_start_end_the_job(fake):
    fake.deaths = Counter({"start": 99})
    with pytest.raises(WorkersLostError, match="The node has died"):
        run(fake, 5, (1, 2))


def test_what_an_actor_raises_ends_the_job(fake):
    fake.answer = InvalidOptionError("delay_ms must be")
    with pytest.raises(InvalidOptionError, match="delay_ms must be"):
        run(fake, 5, (1, 2))
    fake.answer = KeyError("x")
    with pytest.raises(VoxfastError, match="an actor failed: 'x'"):
        run(fake, 5, (1, 2))


def test_nodes_with_another_version_end_the_job(fake):
    fake.answer = "0.0.1"
    with pytest.raises(VoxfastError, match=r"an actor has voxfast 0\.0\.1"):
        run(fake, 5, (1, 2))


def test_a_cluster_without_resources_is_reported(fake, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "_PATIENCE", -1.0)
    fake.room = 0
    with (
        caplog.at_level(logging.WARNING),
        cluster.ActorPool(Settings("m", ("json",)), Cluster(cpus=64)) as pool,
    ):
        pool.fill(deque([Recording("a", "/a.wav")]))
        assert pool.wait() == []
    assert "an actor needs 64 CPUs and 0 GPUs" in caplog.text


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "voxfast\[ray\]"'):
        cluster.ActorPool(Settings("m", ("json",)), Cluster())


def test_nothing_listens_at_the_address(monkeypatch):
    """Ray would try for minutes."""

    def never(**_: object) -> None:
        pytest.fail("Ray was asked")

    ray = SimpleNamespace(init=never)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cluster._check_answers(f"127.0.0.1:{port}")
    for place in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"[::1]:{port}"):
        with pytest.raises(VoxfastError, match=r"no cluster of Ray .*; start one there") as told:
            cluster._connect(ray, place)
        assert place in str(told.value)
        assert ("--port" in str(told.value)) == (not place.startswith("ray://"))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(VoxfastError, match="no cluster of Ray at 127"):
        cluster._connect(ray, None)
    for place in ("head", "[::1", "head:port", "://:1"):
        with pytest.raises(VoxfastError, match="is no address of a cluster"):
            cluster._connect(ray, place)


# Ray itself


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes, a processor each."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster as LocalCluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    nodes = LocalCluster(initialize_head=True, head_node_args=node)
    nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray.init(address=nodes.address, logging_level=logging.ERROR, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_ray_data(nodes, tmp_path):
    data = pytest.importorskip("ray.data", reason="ray[data] is not installed")
    names = make_archive(tmp_path, 1, 1)
    rows = data.from_items([{"path": str(tmp_path / name)} for name in names])
    rows = rows.map_batches(
        TranscribeBatch, batch_size=1, compute=data.ActorPoolStrategy(size=1), num_cpus=1
    )
    got = {Path(row["path"]).name: row for row in rows.take_all()}
    expected = voxfast.transcribe(tmp_path / names[0])
    assert got["talk.wav"]["text"] == expected.text
    assert got["talk.wav"]["words"] == len(expected.words)
    assert np.isnan(got["0-empty.mp3"]["duration"])
    assert "is empty" in got["0-empty.mp3"]["error"]


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_what_one_process_gives(nodes, tmp_path, monkeypatch):
    """An actor is killed, and then a node."""
    archive = tmp_path / "archive"
    make_archive(archive, 6, 2, longest=2.5)
    one, two = tmp_path / "one", tmp_path / "two"
    with contextlib.chdir(archive):
        transcribe_files(["."], one, workers=1)

    given: Counter[str] = Counter()
    give = cluster._Handle.give

    def deadly(handle: cluster._Handle, recording: Recording) -> None:
        import ray

        give(handle, recording)
        given[recording.id] += 1
        if recording.id == "0/talk.mp3" and given[recording.id] == 1:
            ray.kill(handle.actor)

    monkeypatch.setattr(cluster._Handle, "give", deadly)

    def remove(progress: voxfast.batch.Progress) -> None:
        if progress.done == 4:
            nodes.remove_node(nodes.list_all_nodes()[-1])

    with contextlib.chdir(archive):
        state = transcribe_files(["."], two, cluster=Cluster(actors=(2, 2)), progress=remove)
    assert (state.done, state.failed) == (8, 2)
    assert given["0/talk.mp3"] >= 2  # its second actor may be that of the node
    assert results_of(two) == results_of(one)
    assert plain(index_of(two)) == plain(index_of(one))
