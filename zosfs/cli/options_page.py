"""`zosfs options`: the option table as the page docs/options.md.

Owns: the page's layout. May use: the table's projection to flags and values.
"""

from __future__ import annotations

import argparse

from zosfs.cli.options import default_of
from zosfs.config_values import kind, rows

_HEAD = """# Options

Made by `zosfs options`; change `zosfs/config.py`, not this page.
"""
RULES = """
Every option can be given as `-o name=value` (on the command line and in /etc/fstab), as `--long-flag value` (dashes for
underscores), as an environment variable `ZOSFS_NAME`, and in a TOML file (`--config FILE`, else `/etc/zosfs/config.toml`,
`/etc/zosfs/BUCKET.toml` and `~/.config/zosfs/config.toml`; a table `[source."BUCKET"]` holds options of one source).
The command line wins over the environment, that over files, those over defaults. Booleans are switched off with `no` in
front (`noposix`) or `=0`. Double quotes keep a comma inside a value. Sizes take K, M, G, T (powers of 1024), durations
ms, s, m, h, d (a bare number: seconds).

A bare number for `multipart_size`, `multipart_threshold` (below 1048576) and `ensure_diskfree` counts megabytes, as in s3fs.
Secrets are never options: `passwd_file` names a file of mode 0600 with `ACCESS_KEY:SECRET_KEY`.

What mount(8), fstab, libfuse and s3fs lines add is accepted: `_netdev`, `nofail`, `noauto`, `user`, `x-systemd.*`, `big_writes` …
"""
"""How options are given, in paragraphs of Markdown."""


def page() -> str:
    """The whole page, ending with a newline."""
    lines = [_HEAD + RULES]
    group = ""
    for row in rows():
        if row.metadata["group"] != group:
            group = row.metadata["group"]
            lines += [f"## {group[0].upper()}{group[1:]}", ""]
            lines += ["| option | value | default | meaning | also |", "|---|---|---|---|---|"]
        what = " ".join(row.metadata["choices"]) or kind(row)
        also = ", ".join([*(f"`{name}`" for name in row.metadata["aliases"]), *(f"`${name}`" for name in row.metadata["env"])])
        lines.append(f"| `{row.name}` | {what} | {default_of(row)} | {row.metadata['help']} | {also} |")
        following = _next_group(row.name)
        if following != group:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _next_group(name: str) -> str:
    names = [row.name for row in rows()]
    at = names.index(name) + 1
    return str(rows()[at].metadata["group"]) if at < len(names) else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the page."""
    print(page(), end="")
    return 0
