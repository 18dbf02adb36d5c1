"""What is answered from memory without a deadline: nothing that has to be asked for, and no name that is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import trio

from tests.tree.bucket import Names, find, read, tree_over
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.fs.entries import missing
from zosfs.fs.operations import Operations


def test_dots_are_no_missing_names_of_a_listed_directory() -> None:
    async def test() -> None:
        async with tree_over(Names("d/f"), posix=False) as tree:
            directory = await find(tree, "d")
            await read(tree, directory)
            moving = SimpleNamespace(left=[])  # no renaming of an earlier run
            seen = cast(Any, SimpleNamespace(tree=tree, ttl=1.0, options=Options(), counters=Counters(), moving=moving))
            seen._missing = lambda parent, name: missing(1.0)
            context = cast(pyfuse3.RequestContext, None)
            for name in (b".", b".."):
                assert Operations._lookup_known(seen, directory.number, name, context) is None, "left to the handler, which knows them"
            answer = Operations._lookup_known(seen, directory.number, b"missing", context)
            assert answer is not None
            assert answer.st_ino == 0

    trio.run(test)
