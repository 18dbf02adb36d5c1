"""`python -m bench`: mounts each tool afresh for each workload, times the same work, and prints and keeps what it took.

Without --url it starts a Ceph RADOS gateway of its own. Nothing else should run on the machine meanwhile; only ratios within one run mean
anything. `python -m bench.page` makes the page of docs/ of what was kept.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import bare
from bench.floor import floors
from bench.places import Bucket, Directory
from bench.proxy import DELAY, RATE, Distant
from bench.report import show
from bench.requests import AccessLog, by_verb
from bench.results import Result, Run, best, dump
from bench.tools import TOOLS, Installed, Kind, Mounted, Target, cost_of, environment, installed
from bench.work import SMALL, Scale
from bench.workloads import WORKLOADS, Workload, describe, set_up, to_warm

GIVEN_BY_PATH = ("geesefs", "goofys", "mountpoint")
_FAR_CREATED = 200
_LOGGED_WITHIN = 30.0
_SETTLES = 7.0


def main() -> int:
    """Run what the command line asks for; 0 when nothing failed on zosfs."""
    given = _parse()
    tools = installed({name: path for name in GIVEN_BY_PATH if (path := getattr(given, name))})
    chosen = _named(given.tools, TOOLS) or [name for name in tools if TOOLS[name].kind is not Kind.CEILING]
    if missing := [name for name in chosen if name not in tools]:
        raise SystemExit(f"not on this machine: {', '.join(missing)}")
    wanted = _named(given.only, [workload.name for workload in WORKLOADS])
    workloads = [workload for workload in WORKLOADS if not wanted or workload.name in wanted]
    scale = SMALL if given.small else Scale()
    ways = [where for where in ("near", "far") if getattr(given, where)] or ["near"]
    run = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # ended like by Ctrl-C: the mounts and the server go, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as undo:
        home = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="zosfs-bench-")))
        server = _server(given, scale, home, undo)
        said = {
            "run": run, "load": round(os.getloadavg()[0], 1), "machine": platform.platform(), "cpus": os.cpu_count(),
            "python": platform.python_version(), "server": server.name, "delay": DELAY, "rate": RATE,
            "limit": {where: _limit(given, where) for where in ways}, "versions": {name: tools[name].version for name in chosen},
        }  # fmt: skip
        juicefs = [tools[name] for name in chosen if tools[name].tool.format]
        _prepare(server, scale, workloads, juicefs, home)
        results: list[Result] = []
        for where in ways:
            sized = scale if where == "near" else replace(scale, created=min(scale.created, _FAR_CREATED))
            said[f"scale {where}"] = vars(sized)
            with ExitStack() as near_or_far:
                distant = near_or_far.enter_context(Distant(server.target.url)) if where == "far" else None
                setting = Setting(where, sized, server, distant, home, _limit(given, where), run)
                for workload in (each for each in workloads if where == "near" or each.far):
                    does = _does(workload, [tools[name] for name in chosen])
                    if given.floor and where == "near" and workload.name in bare.WORKLOADS:
                        does.append(bare.in_memory(sized))
                    passes = measure(setting, workload, does, given.repeat, given.patience)
                    results += best(passes)
                    if given.floor:
                        results += _floors(setting, workload)
                    _save(given.output, run, said, results)
                if distant:
                    print(f"the way to the server took {cost_of(distant.pid).cpu:.1f} s of CPU")
    show(results)
    print(f"kept in {_save(given.output, run, said, results)}")
    return 1 if any(one.failed and one.tool in TOOLS and TOOLS[one.tool].kind is Kind.OURS for one in results) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--near", action="store_true", help="straight to the server (the default)")
    parser.add_argument("--far", action="store_true", help="10 ms away each way, and 50 MB/s for each connection")
    parser.add_argument("--only", default="", help=f"which workloads, with commas [{','.join(w.name for w in WORKLOADS)}]")
    parser.add_argument("--tools", default="", help=f"which tools, with commas, of {','.join(TOOLS)} [all but juicefs]")
    parser.add_argument("--repeat", type=int, default=2, help="passes of each workload; the best of each tool counts [2]")
    parser.add_argument("--patience", type=float, default=8.0, help="what took a tool longer than this is not done again [8 s]")
    parser.add_argument("--limit", type=float, help="what takes longer than this is ended [near 60 s, far 30 s]")
    parser.add_argument("--small", action="store_true", help="a twentieth of the work, to try things out")
    parser.add_argument("--url", help="an S3 server (credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)")
    parser.add_argument("--access-log", type=Path, help="log of the RADOS gateway at --url, to count requests by")
    parser.add_argument("--weed", action="store_true", help="start SeaweedFS instead of Ceph")
    parser.add_argument("--floor", action="store_true", help="measure beside what the requests cost alone (curl), and pyfuse3 alone")
    parser.add_argument("--keep", action="store_true", help="keep the bucket at --url for the next run")
    for name in GIVEN_BY_PATH:
        parser.add_argument(f"--{name}", metavar="PATH", help="its program, to be measured beside")
    parser.add_argument("--output", type=Path, default=Path("bench/results"), help="directory for what is measured")
    return parser.parse_args()


def _named(words: str, known: Iterable[str]) -> list[str]:
    names = [word for word in words.split(",") if word]
    if unknown := set(names) - set(known):
        raise SystemExit(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return names


def _limit(given: argparse.Namespace, where: str) -> float:
    return float(given.limit or (60.0 if where == "near" else 30.0))


@dataclass(frozen=True)
class Server:
    """A running server with its bucket, and the log that it writes, if any."""

    name: str
    target: Target
    bucket: Bucket
    log: Path | None


def _server(given: argparse.Namespace, scale: Scale, home: Path, undo: ExitStack) -> Server:
    name = f"zosfs-bench-{scale.large}"
    state = home / "state"
    state.mkdir()
    log: Path | None = given.access_log
    if given.url:
        says = given.url
        target = Target(given.url, name, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], state)
    elif given.weed:
        from zosfs.demo.server import Weed

        weed = undo.enter_context(Weed(home / "server"))
        says, target = "SeaweedFS", Target(weed.url, name, weed.access_key, weed.secret_key, state)
    else:
        from tests.servers.rgw import Rgw

        # unix socket paths are short; the large files fit into the server's memory, so that its disk is in nobody's way
        rgw = Rgw(Path("/tmp") / f"zosfs-bench-rgw-{os.getpid()}", memory=5 << 30)
        undo.callback(rgw.stop)
        says, log = "Ceph RGW, one OSD", rgw.directory / "log" / "client.rgw.log"
        target = Target(rgw.server.url, name, rgw.server.access_key, rgw.server.secret_key, state)
    bucket = Bucket(target.url, name, target.access_key, target.secret_key)
    bucket.create()
    if given.url and not given.keep:
        undo.callback(bucket.delete)
    return Server(says, target, bucket, log)


def _prepare(server: Server, scale: Scale, workloads: Sequence[Workload], juicefs: Sequence[Installed], home: Path) -> None:
    print("preparing …", flush=True)
    set_up(server.bucket, scale, workloads)
    for each in juicefs:
        Bucket(server.target.url, f"{server.target.bucket}-juicefs", server.target.access_key, server.target.secret_key).create()
        assert each.tool.format is not None
        command, more = each.tool.format(each.program, server.target, home, home)
        subprocess.run(command, env=environment(more), check=True, capture_output=True, stdin=subprocess.DEVNULL)
        with _own_place(each, server.target, home) as mounted:
            set_up(Directory(mounted.path), scale, workloads)
    server.bucket.warm(to_warm(workloads))
    _touch_memory()


def _own_place(what: Installed, target: Target, home: Path) -> Mounted:
    return Mounted(what, target, Path(tempfile.mkdtemp(dir=home)))


def _touch_memory() -> None:
    """Write to a part of the free memory once: on virtual machines the first touch of a page is several times slower."""
    free = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    size = min(free // 2, 6 << 30) & ~(mmap.PAGESIZE - 1)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def _does(workload: Workload, chosen: Sequence[Installed]) -> list[Installed]:
    named = workload.tools.split()
    return [each for each in chosen if each.tool.name in named or each.tool.kind is Kind.SHOWN]


@dataclass(frozen=True)
class Setting:
    """Near or far, with all that a pass needs to know."""

    where: str
    scale: Scale
    server: Server
    distant: Distant | None
    home: Path
    limit: float
    run: str

    @property
    def target(self) -> Target:
        """The bucket as the tools see it."""
        return replace(self.server.target, url=self.distant.url) if self.distant else self.server.target


def measure(setting: Setting, workload: Workload, does: Sequence[Installed], repeat: int, patience: float) -> list[Result]:
    """*repeat* passes of all tools in turns, every second time in the opposite order, so that neither end is favoured. What took a tool
    more than *patience* seconds is not done again."""
    print(f"{setting.where}: {describe(workload, setting.scale)}", flush=True)
    done: list[Result] = []
    for n in range(repeat):
        for each in does if n % 2 == 0 else reversed(does):
            before = [one for one in done if one.tool == each.tool.name]
            if before and (before[-1].failed or before[-1].delivered > patience or each.tool.kind is Kind.CEILING):
                continue
            done.append(one := _pass(setting, workload, each))
            numbers = f"{one.delivered:8.3f} s, CPU {one.cpu:.2f} s, {one.peak >> 20} MiB {dict(one.requests) or ''}"
            print(f"  {one.tool:33}{one.failed or numbers}{' (ended)' if one.cut else ''}", flush=True)
    return done


def _floors(setting: Setting, workload: Workload) -> list[Result]:
    def make_ready() -> None:
        _prepare_scratch(setting, workload)

    found = floors(workload.name, setting.target, setting.scale, setting.where, setting.run, setting.home, make_ready)
    for one in found:
        print(f"  {one.tool}: {one.delivered:.3f} s, CPU {one.cpu:.2f} s", flush=True)
    return found


def _pass(setting: Setting, workload: Workload, what: Installed) -> Result:
    """One workload on a fresh mount of one tool."""
    result = Result(workload.name, what.tool.name, setting.where, setting.run, moved=workload.moved(setting.scale))
    place = Path(tempfile.mkdtemp(dir=setting.home))
    try:
        _make_ready(setting, workload, what, place)
        with Mounted(what, setting.target, place) as mounted:
            count = _counting(setting)
            timed = _timed(workload.name, mounted, setting)
            if timed is None:
                return replace(result, cut=True, wall=setting.limit, delivered=setting.limit)
            start, end = timed
            # a filesystem of another format, or without a server, keeps its own word for what is there
            settled = workload.delivered if what.tool.kind not in (Kind.CEILING, Kind.FLOOR) else None
            there = end  # not the time after the program's exit, 20 ms of Python's own: that is most of some reads
            if settled is not None:
                there = _settled(partial(settled, setting.server.bucket, setting.scale), start + setting.limit)
            cost = mounted.cost()
            return replace(
                result, wall=end - start, delivered=max(end, there) - start, cut=there > start + setting.limit,
                cpu=cost.cpu, peak=cost.peak, requests=count(),
            )  # fmt: skip
    except Exception as error:
        return replace(result, failed=f"{type(error).__name__}: {error}"[:300])
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _make_ready(setting: Setting, workload: Workload, what: Installed, place: Path) -> None:
    if what.tool.kind is Kind.CEILING:
        with _own_place(what, setting.server.target, setting.home) as mounted:
            own = Directory(mounted.path)
            own.clear("scratch/")
            workload.prepare(own, setting.scale)
    elif what.tool.kind is not Kind.FLOOR:
        _prepare_scratch(setting, workload)
    if workload.twice:
        with Mounted(what, setting.target, place) as mounted:
            _timed(workload.name, mounted, setting)
            # rclone keeps a handle open for 5 s after its release, and notes only then what it has in its cache
            time.sleep(_SETTLES)


def _prepare_scratch(setting: Setting, workload: Workload) -> None:
    setting.server.bucket.clear("scratch/")
    workload.prepare(setting.server.bucket, setting.scale)


def _timed(name: str, mounted: Mounted, setting: Setting) -> tuple[float, float] | None:
    """When the program began and ended; None when it took too long. Raises RuntimeError when it failed."""
    command = [sys.executable, "-m", "bench.work", name, str(mounted.path), json.dumps(vars(setting.scale))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as child:
        try:
            out, error = child.communicate(timeout=setting.limit)
        except subprocess.TimeoutExpired:
            mounted.kill()
            child.kill()
            return None
    if child.returncode:
        raise RuntimeError(error.strip().splitlines()[-1] if error.strip() else f"ended with {child.returncode}")
    start, end = json.loads(out)
    return start, end


def _settled(condition: Callable[[], bool], until: float) -> float:
    """When the look that first saw *condition* began; a moment after *until* when none did by then."""
    while True:
        now = time.monotonic()
        if condition():
            return now
        if now > until:
            return now
        time.sleep(0.02)


def _counting(setting: Setting) -> Callable[[], Mapping[str, int]]:
    """Begins to count the requests that arrive at the server; the function that is returned says how many did."""
    if setting.distant:
        setting.distant.counts()
        return setting.distant.counts
    if setting.server.log is None:
        return dict
    log = AccessLog(setting.server.log)
    mark = _marked(setting, log)
    mark()
    return lambda: by_verb(mark())


def _marked(setting: Setting, log: AccessLog) -> Callable[[], list[tuple[str, str]]]:
    def mark() -> list[tuple[str, str]]:
        name = f"mark-{uuid.uuid4().hex}"
        setting.server.bucket.size(name)
        deadline = time.monotonic() + _LOGGED_WITHIN
        while (found := log.since(name.encode())) is None:
            if time.monotonic() > deadline:
                raise RuntimeError("the server's log says nothing")
            time.sleep(0.02)
        return found

    return mark


def _save(directory: Path, run: str, facts: Mapping[str, object], results: Sequence[Result]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{run.replace(':', '')}.json"
    path.write_text(dump(Run(facts, results)))
    return path


if __name__ == "__main__":
    sys.exit(main())
