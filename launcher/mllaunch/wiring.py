"""The only place that knows which concrete part serves which interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllaunch.config import Config
    from mllaunch.domain.codeuse import Edit
    from mllaunch.domain.image import Image
    from mllaunch.domain.placement import Wish
    from mllaunch.domain.run import Run
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.images.asking import Answer
    from mllaunch.images.locks import FileLocks
    from mllaunch.ports import ImageBuilder, Scheduler
    from mllaunch.runlog.blobs import FileBlobStore
    from mllaunch.runlog.names import RandomIds
    from mllaunch.runlog.sqlite import SqliteRunLog
    from mllaunch.schedulers.agent_process import AgentProcess
    from mllaunch.schedulers.local import LocalScheduler
    from mllaunch.schedulers.ssh.fleet import Fleet
    from mllaunch.schedulers.ssh.scheduler import SshScheduler
    from mllaunch.schedulers.ssh.seen import Seen
    from mllaunch.usecases.collect import Collector
    from mllaunch.usecases.doctor import Fault, NodeAnswer
    from mllaunch.usecases.images import MadeImage
    from mllaunch.usecases.outputs import OutputFolder
    from mllaunch_containers.engine import Docker


class SystemClock:
    def now(self) -> str:
        from mllaunch.domain.times import stated

        return stated(int(time.time() * 1000))


class GitCodeStore:
    """The CodeStore that is a bare git repository."""

    def __init__(self, path: str) -> None:
        self.path = path

    def preserve(self, snapshot: Snapshot) -> None:
        from mllaunch.capture import codestore

        codestore.preserve(self.path, snapshot)

    def record_changes(
        self, snapshot: Snapshot, run_id: str, edits: Sequence[Edit]
    ) -> list[tuple[bytes, str | None]]:
        from mllaunch.capture import codechanges

        self.preserve(snapshot)
        return codechanges.record(self.path, snapshot.commit, run_id, edits)


class App:
    """Everything one invocation works with; each part is made when it is first asked for."""

    def __init__(self, environ: Mapping[str, str], cwd: str, agent: AgentProcess | None = None) -> None:
        self.environ = environ
        self.cwd = cwd
        self.clock = SystemClock()
        self._agent = agent

    @cached_property
    def home(self) -> str:
        from mllaunch.config.folders import home

        return home(self.environ)

    @cached_property
    def node(self) -> str:
        return os.uname().nodename

    @cached_property
    def ids(self) -> RandomIds:
        from mllaunch.runlog.names import RandomIds

        return RandomIds()

    @cached_property
    def log(self) -> SqliteRunLog:
        from mllaunch.runlog.sqlite import SqliteRunLog

        return SqliteRunLog(self.home)

    @cached_property
    def blobs(self) -> FileBlobStore:
        from mllaunch.runlog.blobs import FileBlobStore

        return FileBlobStore(self.home)

    @cached_property
    def code(self) -> GitCodeStore:
        return GitCodeStore(os.path.join(self.home, "code.git"))

    @cached_property
    def trees(self) -> str:
        """The folder of kept trees."""
        return os.path.join(self.home, "trees")

    @cached_property
    def cache(self) -> str:
        """The folder for what may be forgotten."""
        path = os.path.join(self.home, "cache")
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    @cached_property
    def scheduler(self) -> LocalScheduler:
        from mllaunch.schedulers.local import LocalScheduler

        return LocalScheduler(self.home, self.node, self._agent)

    @cached_property
    def collector(self) -> Collector:
        from mllaunch.usecases.collect import Collector

        return Collector(self.log, self.blobs, self.code, self.scheduler_of, self.clock)

    def scheduler_of(self, run: Run) -> Scheduler:
        """The one that a run was started by."""
        return self.ssh if run.spec.backend == "ssh" else self.scheduler

    def outputs(self, run: Run, attempt: int, node: str | None = None) -> Mapping[str, OutputFolder]:
        """By node, where what an attempt's tasks wrote can be looked at; empty once nothing is left of it.

        node: on this one alone.
        """
        from mllaunch.ports import AttemptRef

        return self.host_of(run).outputs(AttemptRef(run.id, attempt), node)

    def host_of(self, run: Run) -> LocalScheduler | SshScheduler:
        """What knows the places where a run's tasks are."""
        return self.ssh if run.spec.backend == "ssh" else self.scheduler

    @cached_property
    def ssh(self) -> SshScheduler:
        """For runs that are on nodes already: where these are is recorded with the runs."""
        from mllaunch.schedulers.ssh.fleet import Fleet
        from mllaunch.schedulers.ssh.scheduler import SshScheduler

        return SshScheduler(self.home, Fleet((), self.seen.note))

    def choose(self, backend: str, config: Config, wish: Wish, *, own_python: bool) -> Scheduler:
        """What is to start a run. wish: the nodes that the user wants. own_python: whether the interpreter that is
        configured for a node goes before the run's."""
        if backend != "ssh":
            return self.scheduler
        from mllaunch.schedulers.ssh.scheduler import SshScheduler

        self.ssh = SshScheduler(
            self.home, self.fleet(config), wish, own_python, config.ssh.lease_s, config.keep_s
        )
        return self.ssh

    def fleet(self, config: Config) -> Fleet:
        """The nodes of the configuration."""
        from mllaunch.schedulers.ssh.fleet import Fleet
        from mllaunch.schedulers.ssh.transport import Address

        known_hosts = self._file_of(config.ssh.known_hosts)
        ssh_config = self._file_of(config.ssh.config)
        addresses = [
            Address(n.name, n.host, n.user, n.port, n.python, known_hosts, ssh_config) for n in config.nodes
        ]
        return Fleet(addresses, self.seen.note)

    @cached_property
    def seen(self) -> Seen:
        """When nodes answered last."""
        from mllaunch.schedulers.ssh.seen import Seen

        return Seen(self.home, self.clock)

    def _file_of(self, path: str | None) -> str | None:
        """A file that the configuration names, wherever mllaunch is called from, then or later."""
        return path and os.path.join(self.root or self.cwd, os.path.expanduser(path))

    def look_at_nodes(self, words: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Every node of the configuration, or those that the words mean, as `nodes --json` prints it; all are asked
        at once. NotFound, if a word means none."""
        from mllaunch.domain.placement import meant
        from mllaunch.schedulers.ssh.calls import Calls
        from mllaunch.usecases.nodes import Asked, entry

        def ask(calls: Calls) -> Asked:
            sent_s = time.time()
            hello = calls.call("hello")
            came_s = time.time()
            return Asked(hello, calls.call("offer"), calls.call("engine"), sent_s, came_s)

        config = self.config(self.root, {})
        fleet = self.fleet(config)
        wanted = {name for word in words for name in meant(word, config.nodes)}
        nodes = [node for node in config.nodes if not words or node.name in wanted]
        addresses = [fleet.address(node.name) for node in nodes]
        answers = fleet.each(addresses, ask)
        return [entry(node, node.host, answers[node.name], self.seen.last(node.name)) for node in nodes]

    def nodes_of(self, run: Run, attempt: int) -> list[str]:
        """Where an attempt is, in the order of ranks. This machine may have had another name then."""
        if run.spec.backend == "ssh":
            from mllaunch.ports import AttemptRef

            return self.ssh.nodes_of(AttemptRef(run.id, attempt))
        nodes = [node for number, node in self.log.views(run.id) if number == attempt]
        return nodes or [run.submitted_by_host]

    def node_of_rank(self, run: Run, attempt: int, rank: int) -> str:
        return self.nodes_of(run, attempt)[rank // run.spec.resources.tasks_per_node]

    @cached_property
    def engine_answer(self) -> Answer:
        """Whether a container engine answers here; asked once."""
        from mllaunch.images.asking import ask

        return ask(self.environ)

    def engine_where(self, backend: str) -> Answer:
        """Whether container engines answer where the run is to be: here, or on every node that was chosen."""
        from mllaunch.domain.job import SSH
        from mllaunch.images.asking import Answer

        if backend != SSH:
            return self.engine_answer
        found = [(node, Answer(**engine)) for node, engine in self.ssh.chosen.engines.items()]
        for node, answer in found:
            if answer.version is None:
                remedy = f"mllaunch doctor --node {node}"
                problem = f"{node} has no container engine: {answer.problem}"
                return answer._replace(problem=problem, remedy=remedy)
        if len({answer.platform for _, answer in found}) > 1:
            said = ", ".join(f"{node} is {answer.platform}" for node, answer in found)
            problem = f"one image is not for all of the nodes: {said}"
            return Answer("", None, problem, remedy="--node names those that are alike")
        return found[0][1]

    @contextmanager
    def building_for(self, backend: str) -> Iterator[None]:
        """While it lasts, images are made by an engine that makes what the run's nodes can use: this machine's, or
        else that of the first of the nodes."""
        where = self.engine_where(backend)
        here = self.engine_answer
        if here is where or (here.version is not None and here.platform == where.platform):
            yield
            return
        node = self.ssh.chosen.nodes[0]
        with self.ssh.chosen.engine(node) as socket, self._asking(where._replace(socket=socket)):
            yield

    @contextmanager
    def engine_on(self, node: str) -> Iterator[None]:
        """While it lasts, the engine is that of a node of the configuration. MllaunchError if that has none."""
        from mllaunch.errors import MllaunchError
        from mllaunch.images.asking import Answer

        fleet = self.fleet(self.config(self.root, {}))
        address = fleet.address(node)
        answer = Answer(**fleet.calls(address).call("engine"))
        if answer.version is None:
            why = f"{node} has no container engine: {answer.problem}"
            raise MllaunchError("no_engine", why, hint=f"mllaunch doctor --node {node}")
        with fleet.engine(address, answer.socket) as socket, self._asking(answer._replace(socket=socket)):
            yield

    @contextmanager
    def _asking(self, engine: Answer) -> Iterator[None]:
        """While it lasts, the engine is another."""
        here = self.engine_answer
        self.engine_answer = engine
        self.__dict__.pop("docker", None)
        try:
            yield
        finally:
            self.engine_answer = here
            self.__dict__.pop("docker", None)

    def send_image(self, image: Image, nodes: Sequence[str], say: Callable[[str], None]) -> int:
        """Bring an image to nodes without a registry; how many bytes that took. MllaunchError."""
        from functools import partial

        from mllaunch.images import shipping

        targets = [
            shipping.Target(
                node, partial(self.ssh.chosen.engine, node), partial(self.ssh.chosen.shared, node)
            )
            for node in nodes
        ]
        return shipping.send(self.engine_answer.socket, lambda: self.docker, image, targets, say)

    def registry_login(self, image: Image) -> str | None:
        """What an engine must be told to fetch the image from its registry; None: nothing. MllaunchError."""
        from mllaunch.images.builder import explained
        from mllaunch_containers.spec import ImageError

        try:
            return self.docker.credentials(image.reference.partition("/")[0])
        except ImageError as error:
            raise explained(error) from error

    @cached_property
    def locks(self) -> FileLocks:
        from mllaunch.images.locks import FileLocks

        return FileLocks(self.home)

    @cached_property
    def docker(self) -> Docker:
        """The engine through Docker's SDK, for what takes long."""
        from mllaunch_containers.engine import Docker

        return Docker(self.engine_answer.socket)

    def images(self, registry: str | None, network: str) -> ImageBuilder:
        from mllaunch.images.builder import EngineImageBuilder
        from mllaunch_agent.engine import Engine
        from mllaunch_containers.builder import Builder

        answer = self.engine_answer
        # What a build runs needs the package index, whatever the tasks may reach.
        during = "host" if network == "host" else "bridge"
        made = Builder(
            Engine(answer.socket),
            lambda: self.docker,
            self.locks,
            platform=answer.platform,
            registry=registry,
            network=during,
        )
        return EngineImageBuilder(made)

    @cached_property
    def c_layer(self) -> bytes:
        """The source of the C layer, for images."""
        import mllaunch_agent

        with open(os.path.join(os.path.dirname(mllaunch_agent.__file__), "hook", "preload.c"), "rb") as file:
            return file.read()

    def ask_node(self, name: str) -> NodeAnswer | Fault:
        """What a node of the configuration answers about itself. NotFound if there is none of that name."""
        from mllaunch.errors import MllaunchError
        from mllaunch.usecases.doctor import Fault, NodeAnswer

        config = self.config(self.root, {})
        fleet = self.fleet(config)
        address = fleet.address(name)
        own = None if config.python_is_typed else address.python
        try:
            calls = fleet.calls(address)
            python = own or self._python_of_runs(config)
            has_python = python is None or calls.call("which", programs=[python]) is not None
            sent_s = time.time()
            at_s = calls.call("hello")["at_s"]
            offset_s = at_s - (sent_s + time.time()) / 2
            engine = calls.call("engine", thoroughly=True)
            agent = calls.call("check", lease_dir=None)
            return NodeAnswer(agent, engine, offset_s, None if has_python else python)
        except MllaunchError as error:
            hint = None if error.hint == f"mllaunch doctor --node {name}" else error.hint  # that is this
            return Fault("; ".join((error.message, *error.evidence)), hint)

    def _python_of_runs(self, config: Config) -> str | None:
        """The interpreter that is configured for runs that are processes, as they are told it."""
        from mllaunch.usecases.runtime import DOCKER

        return None if config.runtime == DOCKER else config.interpreter(self.root or self.cwd)

    def made_images(self) -> list[MadeImage]:
        """The images in the engine that mllaunch has made. MllaunchError if there is no engine."""
        from mllaunch.errors import MllaunchError
        from mllaunch.images.builder import explained
        from mllaunch.usecases.images import made
        from mllaunch_containers.spec import ENVIRONMENT, ImageError

        if self.engine_answer.version is None:
            raise MllaunchError(
                "no_engine", self.engine_answer.problem or "no engine answers", hint="mllaunch doctor"
            )
        try:
            return list(made(self.docker.images(ENVIRONMENT)))
        except ImageError as error:
            raise explained(error) from error

    def knows_image(self, image_id: str) -> bool:
        """Whether a run of this home has used the image."""
        from mllaunch.domain.artifact import IMAGE, parse_digest

        sha256 = parse_digest(image_id)
        return sha256 is not None and any(a.kind == IMAGE for a in self.log.artifacts(sha256))

    def remove_image(self, image: MadeImage) -> None:
        """Remove an image with all its tags. MllaunchError, if a container still uses it, for one."""
        from mllaunch.images.builder import explained
        from mllaunch_containers.spec import ImageError

        try:
            self.docker.remove(image.id)
        except ImageError as error:
            raise explained(error) from error

    @cached_property
    def root(self) -> str | None:
        """The root of the working tree; None outside of one, where only the user's own settings apply."""
        from mllaunch.capture.git import Git, GitFailed, explained

        try:
            return os.fsdecode(Git(self.cwd).run("rev-parse", "--show-toplevel")).removesuffix("\n")
        except GitFailed as error:
            failure = explained(error, self.cwd)
            if failure.code in ("no-repository", "bare-repository"):
                return None
            raise failure from error

    def config(self, root: str | None, flags: Mapping[str, object]) -> Config:
        from mllaunch.config import load

        return load(root, self.environ, flags)

    @cached_property
    def user(self) -> str:
        import pwd

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    @cached_property
    def import_path(self) -> list[str]:
        from mllaunch.schedulers.local import import_path

        return import_path()

    @cached_property
    def lease_dir(self) -> str | None:
        """Where GPU leases lie; None is the node's own folder, which all users share."""
        return self.environ.get("MLLAUNCH_LEASE_DIR")

    def which(self, program: str) -> str | None:
        """The absolute path of a program, looked up as the submitter's shell would."""
        # shutil.which does the same, at the price of importing every archive format.
        if os.sep in program:
            places = [os.path.expanduser(program)]
        else:
            places = [
                os.path.join(f, program) for f in self.environ.get("PATH", os.defpath).split(os.pathsep)
            ]
        for place in places:
            if os.path.isfile(place) and os.access(place, os.X_OK):
                return os.path.abspath(place)
        return None

    def follow_detached(self) -> None:
        """See to it that a collector runs for as long as a run of this home may have more to say."""
        from mllaunch.usecases import background

        background.ensure(self.home)
