"""`python -m bench`: mounts each tool afresh for each workload, times the same work, and prints the ratios.

Without --url it starts SeaweedFS as a child. Nothing else should run on the machine meanwhile; only ratios within one run mean
anything.
"""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from bench.report import Result, best, show, write
from bench.tools import Mounted, Target, Tool, available
from bench.work import WORKLOADS, Bucket, Scale, Workload, set_up

WAN_LATENCY, WAN_RATE = 0.010, 50e6


def main() -> int:
    """Run what the command line asks for; 0 when nothing failed on zosfs."""
    tools = available()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--url", help="an S3 server (credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)")
    parser.add_argument("--tools", default=",".join(tools), help=f"which to compare, with commas [{','.join(tools)}]")
    parser.add_argument("--work", default="", help=f"which workloads, with commas [{','.join(w.name for w in WORKLOADS)}]")
    parser.add_argument("--small", action="store_true", help="a tenth of the work, to try the runner out")
    parser.add_argument("--large", type=int, metavar="MIB", help="size of the large file (1024 for the bars of 1 GiB)")
    parser.add_argument("--wan", action="store_true", help="10 ms away each way, and 50 MB/s for each connection")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the best counts")
    parser.add_argument("--keep", action="store_true", help="keep the bucket for the next run")
    parser.add_argument("--output", type=Path, default=Path("bench/results/latest.json"))
    arguments = parser.parse_args()
    chosen = [tools[name] for name in arguments.tools.split(",")]
    wanted = arguments.work.split(",") if arguments.work else [workload.name for workload in WORKLOADS]
    workloads = [workload for workload in WORKLOADS if workload.name in wanted]
    scale = Scale.small() if arguments.small else Scale()
    if arguments.large:
        scale = replace(scale, large=arguments.large)
    with ExitStack() as undo:
        home = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="zosfs-bench-")))
        target = _server(arguments.url, f"zosfs-bench-{scale.large}", home, undo)
        bucket = Bucket(_client(target), target.bucket)
        print("preparing the bucket …", flush=True)
        if target.bucket not in {item["Name"] for item in bucket.s3.list_buckets()["Buckets"]}:
            bucket.s3.create_bucket(Bucket=target.bucket)
        if not arguments.keep:
            undo.callback(lambda: (bucket.clear(""), bucket.s3.delete_bucket(Bucket=target.bucket)))
        set_up(bucket, scale)
        if arguments.wan:
            target = Target(_distant(target.url, undo), target.bucket, target.access_key, target.secret_key)
        touch_memory()
        results = []
        for workload in workloads:
            for _ in range(arguments.repeat):
                for tool in chosen:
                    result = run(tool, workload, target, bucket, scale, home)
                    numbers = f"{result.wall:.2f} s, CPU {result.cpu:.2f} s, {result.peak >> 20} MiB {result.requests or ''}"
                    print(f"{workload.name} on {tool.name}: {result.failed or numbers}", flush=True)
                    results.append(result)
        results = best(results)
        show(results, [tool.name for tool in chosen])
        facts = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": platform.platform(), "cpus": os.cpu_count(),
            "wan": arguments.wan, "scale": vars(scale), "tools": {tool.name: tool.version for tool in chosen},
            "what": {workload.name: workload.what for workload in workloads},
        }  # fmt: skip
        write(arguments.output, results, facts)
        print(f"written to {arguments.output}")
    return 1 if any(result.failed and result.tool == "zosfs" for result in results) else 0


def _server(url: str | None, bucket: str, home: Path, undo: ExitStack) -> Target:
    if url:
        return Target(url, bucket, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    from zosfs.demo.server import Weed

    weed = undo.enter_context(Weed(home / "server"))
    return Target(weed.url, bucket, weed.access_key, weed.secret_key)


def _distant(url: str, undo: ExitStack) -> str:
    proxy = subprocess.Popen(
        [sys.executable, "-m", "tests.proxy", url, "--latency", str(WAN_LATENCY), "--rate", str(WAN_RATE)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    undo.callback(proxy.wait)
    undo.callback(proxy.terminate)
    assert proxy.stdout is not None
    return proxy.stdout.readline().strip()


def _client(target: Target) -> Any:
    return boto3.client(
        "s3", endpoint_url=target.url, aws_access_key_id=target.access_key, aws_secret_access_key=target.secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required",
            response_checksum_validation="when_required", max_pool_connections=16,
        ),
    )  # fmt: skip


def touch_memory() -> None:
    """Write to a half of the free memory once: on virtual machines the first touch of a page is several times slower."""
    free = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    size = min(free // 2, 4 << 30) & ~(mmap.PAGESIZE - 1)
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def run(tool: Tool, workload: Workload, target: Target, bucket: Bucket, scale: Scale, home: Path) -> Result:
    """One workload on a fresh mount of one tool."""
    result = Result(workload.name, tool.name)
    place = Path(tempfile.mkdtemp(dir=home))
    try:
        bucket.clear("scratch/")
        workload.prepare(bucket, scale)
        with Mounted(tool, target, place) as mounted:
            start = time.monotonic()
            workload.work(mounted.path, scale)
            bucket.wait(lambda: workload.delivered(bucket, scale))
            result.wall = time.monotonic() - start
            cost = mounted.cost()
            result.cpu, result.peak, result.requests = cost.cpu, cost.peak, cost.requests
    except Exception as error:
        result.failed = f"{type(error).__name__}: {error}"[:300]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
