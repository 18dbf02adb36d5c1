"""An example or two of every command, for `--help` and docs/features.md. A new command is a new row.

Every command that takes a file or directory takes a path on a mount as well as `zos://BUCKET/KEY`.
"""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "mount": ("zosfs mybucket /mnt/mybucket -o url=https://huabei-2.zos.ctyun.cn,passwd_file=/etc/zosfs.passwd",),
    "umount": ("zosfs umount /mnt/mybucket",),
    "status": ("zosfs status", "zosfs status /mnt/mybucket --json"),
    "journal": ("zosfs journal list", "zosfs journal export 3f ./mine.txt"),
    "stats": ("zosfs stats /mnt/mybucket --watch 1",),
    "install": ("zosfs install",),
    "doctor": ("zosfs doctor mybucket --url https://huabei-2.zos.ctyun.cn",),
    "demo": ("zosfs demo ~/zosfs-demo",),
    "cp": ("zosfs cp /mnt/mybucket/a.mp4 /mnt/mybucket/b.mp4", "zosfs cp -r /mnt/mybucket/photos zos://archive/2026/"),
    "bucket": (
        "zosfs bucket create mybucket --az-policy multi-az",
        "zosfs bucket list /mnt/mybucket",
        "zosfs bucket set mybucket versioning Enabled",
        "zosfs bucket get zos://mybucket lifecycle > rules.json",
    ),
    "versions": ("zosfs versions /mnt/mybucket/report.doc", "zosfs versions restore zos://mybucket/report.doc"),
    "restore": ("zosfs restore /mnt/mybucket/2019/ --days 7", "zosfs restore zos://mybucket/2019/film.mov --tier Expedited"),
    "presign": ("zosfs presign /mnt/mybucket/a.zip --expires 2d", "zosfs presign zos://mybucket/inbox/ --html > upload.html"),
    "uploads": ("zosfs uploads list /mnt/mybucket", "zosfs uploads abort zos://mybucket --older-than 7d"),
    "usage": ("zosfs usage --url https://huabei-2.zos.ctyun.cn", "zosfs usage /mnt/mybucket"),
    "image": (
        "zosfs image /mnt/mybucket/a.jpg /mnt/mybucket/small.jpg --process image/resize,w_300/rotate,90",
        "zosfs image zos://mybucket/a.jpg --process image/info",
        "zosfs image zos://mybucket/a.jpg ./marked.jpg --watermark-text '© me' --watermark g_se,t_50",
    ),
    "search": ("zosfs search 'size>1000000' /mnt/mybucket --order-key size", "zosfs search name==report.doc zos://mybucket --json"),
    "topic": ("zosfs topic create news --push-endpoint http://host:8080/", "zosfs topic list"),
    "sts": ("eval \"$(zosfs sts --role-arn arn:aws:iam:::role/reader)\"",),
    "options": ("zosfs options",),
    "completion": ("zosfs completion bash > /etc/bash_completion.d/zosfs", "zosfs completion fish > ~/.config/fish/completions/zosfs.fish"),
    "warmup": ("zosfs warmup --recursive /mnt/mybucket/model",),
    "cache": ("zosfs cache stat /mnt/mybucket",),
}


def epilog(name: str) -> str:
    """What stands at the end of `zosfs NAME --help` ("" for a command without a row)."""
    lines = EXAMPLES.get(name, ())
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines)]) if lines else ""
