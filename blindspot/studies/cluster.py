"""Workers on the nodes of a Ray cluster that share the disk of the run folder: an actor a slot, bound to its node and
GPUs for life, which imports torch once and carries out step after step. A worker for steps of more GPUs than a node has
is an actor on each of several nodes.

They end with the command that started them. As long as one works on a step it holds that step's lock in `WORKING`, so
that a node cut off from the others, which nobody can end, never writes in a folder that somebody else works in.
"""

import logging
import os
import queue
import secrets
import shutil
import socket
import sys
import time
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from blindspot import plugins
from blindspot.errors import UserError, shortage
from blindspot.files import holder, locked
from blindspot.studies.engine import (
    ENVIRONMENT,
    LOG,
    REGISTRY,
    Assignment,
    Outcome,
    StepFailure,
    carry_out,
    in_a_line,
)
from blindspot.studies.gpus import Gpus, find_gpus
from blindspot.studies.progress import Advanced
from blindspot.studies.ranks import Meeting, follow, load_functions, on_ranks
from blindspot.studies.step import Damage, Done, Step, read_done
from blindspot.studies.versions import code_version

WORKING = ".working"
"""Folder of a run folder: in it one for each step that a worker of a cluster has worked on, which locks it."""
SHARED = ("BLINDSPOT_DATA", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", plugins.VARIABLE)
"""Variables that say where data are, which workers take from the command and not from their node."""
OBJECT_STORE_BYTES = 80 * 2**20  # what is passed around is small: files are on the disk
DEATHS = 3  # of workers on their own after which a step is not begun again
SECONDS_TO_END = 10.0
SECONDS_TO_ANSWER = 5.0
SECONDS_TO_EXAMINE = 60.0
SECONDS_TO_GATHER = 600.0
SECONDS_TO_LET_GO = 150.0  # NFS frees the locks of a node that is gone after 90
SECONDS_WITHOUT_ROOM = 300.0
SECONDS_BETWEEN_LOOKS = 1.0
NODE_LABEL = "ray.io/node-id"

News = tuple[Assignment | None, Advanced | Outcome]


def connect(address: str, seconds: float = 0) -> ModuleType:
    """Ray, connected to the cluster at an address, or for ``local`` to one of this machine alone, which starts
    and ends with this process; one that does not answer is tried for some seconds. Nobody outside is told anything."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # else it leaves one in $HOME
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--on ray needs Ray, which is not installed; in Blindspot's repository: pip install -c constraints.txt "
            "-e '.[cluster]'"
        ) from error
    variables, before = _environment(), dict(os.environ)
    own: dict[str, Any] = {"runtime_env": {"env_vars": variables}}
    if address == "local":
        own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        os.environ |= variables  # which its processes inherit at once
    try:
        if address not in ("local", "auto"):
            _refuse_silent(address, seconds)
            _bring_token(ray, address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        what = f"the Ray cluster at {address}" if address != "local" else "a Ray cluster on this machine"
        raise UserError(
            f"cannot use {what}: {error}; every node, this one too, needs the same Python and the same version of Ray, "
            "and `ray start` has to have been called on this machine"
        ) from error
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ |= before
    return ray


def _bring_token(ray: ModuleType, address: str) -> None:
    """Use this user's token with a cluster that asks for one, as `ray start` does; else Ray would try for ever."""
    try:
        ray._raylet.GcsClient(address=address)
    except ray.exceptions.AuthenticationError as error:
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            ray._raylet.Config.initialize("")
            with suppress(ray.exceptions.AuthenticationError):
                return ray._raylet.GcsClient(address=address) and None
        raise UserError(
            f"the Ray cluster at {address} asks for a token that is not here: copy ~/.ray/auth_token from its head, or "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as there"
        ) from error


def _environment() -> dict[str, str]:
    """Variables of workers: those that they have on one machine, too, where data are, and where what is imported is."""
    # What is installed belongs to the node; other folders are where this process has them.
    search = [path for path in sys.path if path and not Path(path).is_relative_to(sys.base_prefix)]
    shared = {name: os.path.abspath(os.environ[name]) for name in SHARED if name in os.environ}
    return {**ENVIRONMENT, **shared, "PYTHONPATH": os.pathsep.join(search)}


def _refuse_silent(address: str, seconds: float) -> None:
    """Ray itself would try for two minutes, in many words."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not host or "/" in host:
        raise UserError(f"--address {address}: should be HOST:PORT, as `ray start --head` prints it, or auto")
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no Ray cluster answers at {address} ({error}); start one with: ray start --head --port {port}"
                ) from error
            time.sleep(SECONDS_BETWEEN_LOOKS)


def wait_for_workers(run: Path, seconds: float | None = None) -> None:
    """See that no worker of an earlier command is at work in a run folder: Ray ends them with it, but for those on a
    node that it lost sight of."""
    for folder in sorted((run / WORKING).glob("*")):
        try:
            with locked(folder, SECONDS_TO_END if seconds is None else seconds):
                pass
        except UserError as error:
            process = (holder(folder) or ("?",))[0]
            raise UserError(
                f"a worker of an earlier command is still at work in {run / 'steps' / folder.name} (process {process} "
                f"of some node); end it, or if its node is gone remove {folder}, and repeat the command"
            ) from error
    shutil.rmtree(run / WORKING, ignore_errors=True)


@dataclass(eq=False)
class _Node:
    """A node that has been examined, and what it has for workers."""

    id: str
    address: str
    cpus: int
    gpus: int
    memory: float | None  # bytes of its smallest GPU


@dataclass(eq=False)
class _Worker:
    """The near side of a worker, and the task that it works on."""

    nodes: Sequence[_Node]  # it has an actor on each, as many GPUs there, and its first rank on the first
    gpus: int
    actors: list[Any]
    group: Any  # what holds GPUs of several nodes together
    news: list[Any]  # where next messages of its actors appear
    told: list[Outcome] = field(default_factory=list)  # by those that have ended while others have not
    ready: bool = False
    task: Assignment | None = None

    @property
    def share(self) -> int:
        """GPUs on each node."""
        return self.gpus // len(self.nodes)

    @property
    def where(self) -> str:
        """Addresses of its nodes."""
        return " and ".join(node.address for node in self.nodes)


class RayPool:
    """Workers on a cluster. Steps of a node that is lost are done again elsewhere, from their checkpoints."""

    def __init__(
        self,
        run: Path,
        workers: int | None = None,
        address: str | None = None,
        nodes: int = 1,
        missing: Callable[[], list[str]] = list,
        registry: str = REGISTRY,
    ) -> None:
        """Connect to a cluster and examine its nodes.

        Args:
            run: the run folder, which this process holds.
            workers: at most so many; None for what the nodes have room for.
            address: of the cluster; None for one of this machine alone.
            nodes: how many to wait for.
            missing: says on a node what is missing there of what the study reads.
            registry: ``module:attribute`` of the step functions.
        """
        self._run, self._most, self._missing, self._registry = run.absolute(), workers, missing, registry
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._alone = address == "local"
        self._nodes: dict[str, _Node] = {}
        self._refused: set[str] = set()
        self._examined: dict[str, tuple[dict[str, Any], Any]] = {}
        self._workers: list[_Worker] = []
        self._to_do: Counter[int] = Counter()
        """Steps that are not begun, by the GPUs that they ask for."""
        self._again: list[Assignment] = []
        self._deaths: defaultdict[str, list[set[str]]] = defaultdict(list)  # nodes of a step's workers that died
        self._looked = self._last_seen = time.monotonic()
        self._marker = self._run / f".seen-{uuid.uuid4().hex}"
        (self._run / LOG).write_bytes(b"")
        self._ray = connect(address, SECONDS_TO_GATHER if nodes > 1 else 0)
        try:
            self._marker.mkdir()
            self._gather(nodes)
            for fault in self._examine(SECONDS_TO_EXAMINE):
                raise UserError(fault)
        except BaseException:
            self.close()
            raise

    @property
    def gpus(self) -> Gpus:
        """All that the nodes have, by number, and the least memory of one."""
        memories = [node.memory for node in self._nodes.values() if node.gpus and node.memory]
        total = sum(node.gpus for node in self._nodes.values())
        return Gpus(tuple(map(str, range(total))), min(memories, default=None))

    def begin(self, steps: Sequence[Step]) -> int:
        """Start workers for steps; returns how many of these go on side by side, at most."""
        for step in steps:
            if not self._spread(step.gpus):
                have = ", ".join(str(node.gpus) for node in self._nodes.values())
                raise UserError(
                    f"{step.id} asks for {step.gpus} GPUs; of the nodes of the cluster, which have {have}, none has so "
                    "many, nor have several an equal part of them each"
                )
        self._to_do = Counter(step.gpus for step in steps)
        for gpus in sorted(self._to_do, reverse=True):
            self._grow(gpus)
        return min(sum(node.cpus for node in self._nodes.values()), len(steps), self._most or len(steps))

    def free(self, step: Step) -> bool:
        if any(task.step.gpus == step.gpus for task in self._again):
            return False
        if self._idle(step.gpus):
            return True
        if not any(worker.gpus == step.gpus and not worker.ready for worker in self._workers):
            self._grow(step.gpus)
        return False

    def start(self, task: Assignment) -> None:
        worker = self._idle(task.step.gpus)[0]
        here = task._replace(
            folder=task.folder.absolute(),
            inputs={role: folder.absolute() for role, folder in task.inputs.items()},
            data_path=task.data_path and task.data_path.absolute(),
        )
        self._to_do[task.step.gpus] -= 1
        worker.task, (first, *others) = task, worker.actors
        meeting = first.meet.remote(worker.nodes[0].address, len(worker.nodes)) if others else None
        for place, actor in enumerate(worker.actors):
            worker.news.append(actor.carry_out.options(num_returns="streaming").remote(here, meeting, place))

    def wait(self, seconds: float) -> list[News]:
        of = {news: worker for worker in self._workers for news in worker.news}
        if not of:
            time.sleep(seconds)
        elif self._ray.wait(list(of), timeout=seconds)[0]:
            of = {news: of[news] for news in self._ray.wait(list(of), num_returns=len(of), timeout=0)[0]}
        else:
            of = {}
        heard = [message for news, worker in of.items() for message in self._hear(worker, news)]
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            heard += self._look_around()
        for task in list(self._again):
            if self._idle(task.step.gpus):
                self._again.remove(task)
                self.start(task)
            elif not any(w.gpus == task.step.gpus and not w.ready for w in self._workers):
                self._grow(task.step.gpus)
        return heard

    def close(self) -> None:
        while self._workers:
            self._retire(self._workers[0])
        shutil.rmtree(self._marker, ignore_errors=True)
        self._ray.shutdown()
        with suppress(UserError):  # of a node that is lost; the next command says so if it is still there then
            wait_for_workers(self._run, 2.0)

    def _idle(self, gpus: int) -> list[_Worker]:
        return [w for w in self._workers if w.ready and w.task is None and w.gpus == gpus]

    def _hear(self, worker: _Worker, news: Any) -> Iterator[News]:
        """The next message of an actor: when all of a worker have ended what they say together; of one that is gone
        what that means for its step."""
        if worker not in self._workers:
            return
        task = worker.task
        try:
            message = self._ray.get(next(news) if task else news)
        except self._ray.exceptions.RayTaskError as error:
            message = StepFailure(f"the worker on {worker.where} failed: {in_a_line(error.cause)}")
        except (self._ray.exceptions.RayError, StopIteration):
            yield from self._lost(worker)
            return
        if isinstance(message, Advanced):
            yield task, message
            return
        worker.news.remove(news)
        worker.told += [message] if message else []
        if worker.news:
            return
        told, worker.told, worker.task = worker.told, [], None
        worker.ready = True
        if task:
            with suppress(OSError):
                os.listdir(task.folder)  # or NFS may go on for a minute with what it knew
        told.sort(key=lambda one: (not isinstance(one, Done), not isinstance(one, UserError)))
        yield from ((task, one) for one in told[:1])

    def _lost(self, worker: _Worker) -> Iterator[News]:
        """Have a step done again whose worker is gone, unless it was done or dies wherever it is begun."""
        self._retire(worker)
        with suppress(Damage, UserError):
            if worker.task and (done := read_done(worker.task.folder, worker.task.step)):
                yield worker.task, done
                return
        what = worker.task.step.id if worker.task else "before its first step"
        self._deaths[what].append({node.id for node in worker.nodes})
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if sum(nodes <= alive for nodes in self._deaths[what]) >= DEATHS:
            failure = UserError(
                f"{what}: its worker was killed {DEATHS} times, the last time on {worker.where}, most likely "
                "because memory ran out; use fewer --workers or a smaller model and repeat the command (finished steps "
                "are kept)"
            )
            yield worker.task, failure
        elif worker.task:
            self._to_do[worker.gpus] += 1
            self._again.append(worker.task)

    def _retire(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        for actor in worker.actors:
            self._ray.kill(actor)
        if worker.group:
            self._ray.util.remove_placement_group(worker.group)

    def _spread(self, gpus: int) -> int:
        """On how many nodes a step of so many GPUs runs: the fewest that have an equal part of them each; else 0."""
        own = [node.gpus for node in self._nodes.values()]
        fit = (n for n in range(1, len(own) + 1) if gpus % n == 0 and sum(one >= gpus // n for one in own) >= n)
        return next(fit, 0)

    def _grow(self, gpus: int) -> None:
        """Start workers of a size where there is room, no more than steps wait for; where none is, idle ones of another
        size give way to one."""
        waiting = sum(worker.gpus == gpus and worker.task is None for worker in self._workers)
        for _ in range(waiting, self._to_do[gpus]):
            if not (nodes := self._room(gpus, self._workers)):
                break
            self._hire(nodes, gpus)
        if any(worker.gpus == gpus for worker in self._workers):
            return
        idle = [worker for worker in self._workers if worker.ready and worker.task is None]
        if nodes := self._room(gpus, [worker for worker in self._workers if worker not in idle]):
            for worker in idle:
                if self._most or not {*nodes}.isdisjoint(worker.nodes):
                    self._retire(worker)
            self._hire(nodes, gpus)

    def _room(self, gpus: int, workers: Sequence[_Worker]) -> list[_Node]:
        """Nodes that a worker of a size has room on beside others, those with fewest first; none if it has to wait."""
        number, free = self._spread(gpus), list[tuple[int, _Node]]()
        for node in self._nodes.values() if number and (self._most is None or len(workers) < self._most) else ():
            own = [worker for worker in workers if node in worker.nodes]
            if len(own) < node.cpus and gpus // number + sum(worker.share for worker in own) <= node.gpus:
                free.append((len(own), node))
        nodes = [node for _, node in sorted(free, key=lambda one: one[0])]
        return nodes[:number] if len(nodes) >= number else []

    def _hire(self, nodes: Sequence[_Node], gpus: int) -> None:
        ray, share, group = self._ray, gpus // len(nodes), None
        places = [self._on(node.id) for node in nodes]
        if len(nodes) > 1:
            from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
                PlacementGroupSchedulingStrategy,
            )

            bundles, labels = [{"CPU": 1, "GPU": share}] * len(nodes), [{NODE_LABEL: node.id} for node in nodes]
            group = ray.util.placement_group(bundles, "STRICT_SPREAD", bundle_label_selector=labels)
            places = [PlacementGroupSchedulingStrategy(group, number) for number in range(len(nodes))]
        slots = [ray.remote(Slot).options(scheduling_strategy=one, num_cpus=1, num_gpus=share) for one in places]
        actors = [slot.remote(self._run, self._registry, Path.cwd()) for slot in slots]
        self._workers.append(_Worker(nodes, gpus, actors, group, [actor.load.remote() for actor in actors]))

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _look_around(self) -> Iterator[News]:
        """Give up the workers of nodes that are lost, and take in nodes that came."""
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        self._looked = time.monotonic()
        for worker in [worker for worker in self._workers if not alive.issuperset(node.id for node in worker.nodes)]:
            yield from self._lost(worker)
        self._nodes = {name: node for name, node in self._nodes.items() if name in alive}
        with (self._run / LOG).open("a") as log:
            log.writelines(f"not used: {fault}\n" for fault in self._examine(0))
        if any(worker.task or not worker.ready for worker in self._workers):
            self._last_seen = self._looked
        elif self._looked - self._last_seen > SECONDS_WITHOUT_ROOM:
            left = f"{len(self._nodes)} nodes left and none with room for what is to do"
            yield None, UserError(f"the cluster has {left}; repeat the command when it has (finished steps are kept)")

    def _gather(self, number: int) -> None:
        deadline = time.monotonic() + SECONDS_TO_GATHER
        while (here := sum(node["Alive"] for node in self._ray.nodes())) < number:
            if time.monotonic() > deadline:
                raise UserError(f"{here} of {number} nodes have come to the cluster; see what `ray status` says there")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _examine(self, seconds: float) -> Iterator[str]:
        """Take in the nodes that share the run folder, code and data, waiting for their answers; what others lack."""
        for node in self._ray.nodes():
            name = node["NodeID"]
            if node["Alive"] and name not in {*self._nodes, *self._refused, *self._examined}:
                asked = Path.cwd(), self._marker, name, self._missing
                if self._alone:  # the node is this machine
                    self._examined[name] = node, self._ray.put(examine(*asked))
                    continue
                on = self._on(name)
                remote = self._ray.remote(examine).options(scheduling_strategy=on, num_cpus=0, max_retries=0)
                self._examined[name] = node, remote.remote(*asked)
        deadline = time.monotonic() + seconds
        for name, (node, answer) in list(self._examined.items()):
            where = f"node {node['NodeManagerAddress']} of the cluster"
            memory = None
            try:
                found = self._ray.get(answer, timeout=max(deadline - time.monotonic(), 0))
                if isinstance(found, str):
                    fault = f"{where} {found}"
                else:
                    code, missing, memory = found
                    fault = self._differs(where, name, code, missing)
            except self._ray.exceptions.GetTimeoutError:
                if not seconds:
                    continue
                fault = f"{where} did not answer for {seconds:.0f} seconds; see what `ray status` says"
            except self._ray.exceptions.RayError as error:
                last = str(error).strip().splitlines()[-1]
                fault = f"{where} cannot use Blindspot ({last}); install the same environment there"
            del self._examined[name]
            if fault:
                self._refused.add(name)
                yield fault
            else:
                cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
                self._nodes[name] = _Node(name, node["NodeManagerAddress"], cpus, gpus, memory)

    def _differs(self, where: str, name: str, code: str, missing: list[str]) -> str | None:
        if not (self._marker / name).exists():
            return f"{where} has another folder at {self._run}; put the run folder on a disk that all nodes share"
        if code != code_version(everything=True):
            return f"{where} has other code of Blindspot or other libraries; install there what is installed here"
        if missing:
            more = f" and {len(missing) - 1} more things" if len(missing) > 1 else ""
            return f"{where}: {missing[0]}{more} that the study needs: missing there; put it on a disk that all share"
        return None


def examine(
    folder: Path, marker: Path, node: str, missing: Callable[[], list[str]]
) -> str | tuple[str, list[str], float | None]:
    """What there is to say against this node; else the version of its code, what is missing, and the bytes of its
    smallest GPU. Leaves a sign in ``marker`` that it sees the disk of the run folder. Runs on the node."""
    if not marker.is_dir():
        return f"does not see the run folder {marker.parent}; put it on a disk that all nodes share"
    if not folder.is_dir():
        return f"does not see {folder}, from where this command was called; call it from a folder that all nodes share"
    try:
        (marker / node).touch()
    except OSError as error:
        return f"cannot write in the run folder {marker.parent} ({error.strerror}); mount it there to be written"
    os.chdir(folder)
    return code_version(everything=True), missing(), find_gpus().memory


class Slot:
    """The far side of a worker. Steps run in a thread, and what they tell is passed on meanwhile."""

    def __init__(self, run: Path, registry: str, cwd: Path) -> None:
        os.chdir(cwd)
        with (run / LOG).open("ab") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        self._run, self._registry, self._thread = run, registry, ThreadPoolExecutor(1)

    def load(self) -> UserError | StepFailure | None:
        """Import the step functions."""
        try:
            self._functions = self._thread.submit(load_functions, self._registry).result()
        except Exception as error:
            traceback.print_exc()
            line = f"workers cannot start: {in_a_line(error)} (more in {LOG} of the run folder)"
            return UserError(line) if isinstance(error, UserError) or shortage(error) else StepFailure(line)

    def meet(self, address: str, nodes: int) -> Meeting:
        """Where the ranks of a step meet on this node, whose address that is."""
        with socket.create_server(("", 0)) as free:
            return Meeting(address, free.getsockname()[1], nodes, secrets.token_hex(4))

    def carry_out(self, task: Assignment, meeting: Meeting | None, place: int) -> Iterator[Advanced | Outcome | None]:
        """Carry out a step, once no other worker is at it; where others have to meet, number ``place`` of these, of
        which the first says what came of it."""
        told: queue.SimpleQueue[Advanced | Outcome | None] = queue.SimpleQueue()
        self._thread.submit(self._work, task, meeting, place, told.put)
        while isinstance(message := told.get(), Advanced):
            yield message
        yield message

    def _work(
        self, task: Assignment, meeting: Meeting | None, place: int, tell: Callable[[Advanced | Outcome | None], None]
    ) -> None:
        step, lock = task.step, self._run / WORKING / f"{task.folder.name}{f'.{place}' * bool(place)}"
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # which Ray set
        try:
            for folder in task.inputs.values():
                os.listdir(folder)  # or NFS may go on for a minute with what it knew of them
            with locked(lock, SECONDS_TO_LET_GO):
                if meeting and place:
                    return tell(follow(self._registry, gpus, step, task.folder, meeting, place))
                several = partial(on_ranks, self._registry, gpus, meeting=meeting) if step.gpus > 1 else None
                tell(carry_out(task, several or self._functions[step.kind], tell))
        except UserError as error:
            tell(UserError(f"{task.step.id}: {error}"))
        except BaseException as error:  # that a step exits, too, has to be told
            tell(StepFailure(f"{task.step.id} failed: {type(error).__name__} {error}"))
