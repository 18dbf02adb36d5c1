"""The page docs/features.md: what the object store can do, through which door, and the tests that show it.

Made of the registries (bucket settings, attributes, commands, image operations) and of ROWS, by `python -m tests.features`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from zosfs.admin.images import OPERATIONS
from zosfs.admin.settings import SETTINGS
from zosfs.cli.examples import EXAMPLES
from zosfs.cli.main import COMMANDS
from zosfs.fs.xattrs import PREFIXES
from zosfs.fs.xattrs import ROWS as XATTRS

ROOT = Path(__file__).resolve().parents[1]

Row = tuple[str, str, tuple[str, ...]]
"""What the store calls it, the door, the tests (file::name, below tests/)."""

ROWS: Mapping[str, Sequence[Row]] = {
    "Buckets": (
        ("ListBuckets", "mounting without a bucket: `zosfs zos: DIR`; `zosfs bucket list`",
         ("fs/test_posix.py::test_all_buckets_of_the_account", "mount/test_whole.py::test_the_account_and_non_ascii_sources",
          "admin/test_commands.py::test_bucket")),
        ("CreateBucket, DeleteBucket", "`mkdir`, `rmdir` in that root; `zosfs bucket create`, `delete`",
         ("fs/test_posix.py::test_all_buckets_of_the_account", "store/test_connect.py::test_buckets", "admin/test_commands.py::test_bucket")),
        ("CreateBucket with ACL, AZPolicy, StorageClass", "`zosfs bucket create --acl --az-policy --storage-class`",
         ("admin/test_zos.py::test_a_bucket_in_several_zones",)),
        ("HeadBucket", "checked before a mount goes live; `df`, `df -i`; `zosfs usage PATH`",
         ("fs/test_mounting.py::test_no_such_bucket", "fs/test_posix.py::test_statfs_and_access", "store/test_verbs.py::test_usage",
          "admin/test_commands.py::test_usage_and_restore")),
        ("bucket settings", "`user.zos.bucket.SETTING` on the bucket's top directory; `zosfs bucket get`, `set`, `unset`, `list`",
         ("fs/test_settings.py::test_set_get_remove_on_ceph", "fs/test_settings.py::test_on_seaweedfs",
          "admin/test_settings.py::test_refused_before_it_is_sent", "admin/test_commands.py::test_an_answer_is_asked_for_on_a_terminal")),
    ),
    "Objects": (
        ("GetObject (Range, If-Match, VersionId)", "`read`; an open file stays with the version that it opened",
         ("content/test_reader_on_servers.py::test_sequential_and_random_reads", "fs/test_faults.py::test_an_object_replaced_while_it_is_read",
          "content/test_reader_on_servers.py::test_on_a_versioned_bucket_the_reader_keeps_its_version")),
        ("HeadObject", "`stat`; attributes `user.zos.etag`, `version-id`, `storage-class`, `content-type`, `object-type`, `meta.KEY`",
         ("fs/test_posix.py::test_extended_attributes", "fs/test_s3fs_trade.py::test_zosfs_reads_what_s3fs_wrote")),
        ("PutObject", "`create`, `write`, `close`; options `acl`, `storage_class`, `sse`, `tags`; Content-Type by the name",
         ("fs/test_budget.py::test_a_small_new_file_is_one_put", "fs/test_features.py::test_defaults_of_new_objects",
          "fs/test_features.py::test_encryption_asked_for_by_option", "fs/test_features.py::test_encryption_is_asked_of_the_server", "store/test_verbs.py::test_conditions")),
        ("PutObject with Append, AppendPosition", "writing with O_APPEND: only new bytes travel",
         ("fs/test_budget.py::test_appending_sends_only_the_new_bytes", "store/test_verbs.py::test_append",
          "content/test_on_ceph.py::test_two_writers_keep_all_their_lines")),
        ("DeleteObject, DeleteObjects", "`unlink`, `rm -r`",
         ("fs/test_removals.py::test_a_tree_goes_with_a_few_requests", "store/test_verbs.py::test_deletes")),
        ("CopyObject, UploadPartCopy", "`rename`, edits inside large files, `zosfs cp`",
         ("fs/test_budget.py::test_renaming_a_file", "fs/test_budget.py::test_renaming_a_directory",
          "fs/test_budget.py::test_an_edit_inside_a_large_file_sends_little",
          "admin/test_copies.py::test_a_file_to_another_bucket_with_all_it_has", "admin/test_copies.py::test_large_objects_go_in_parts",
          "admin/test_copies.py::test_paths_on_a_mount")),
        ("object ACL", "`user.zos.acl`: JSON; set also by a word or grants",
         ("admin/test_objects.py::test_acl_words_grants_and_json", "fs/test_features.py::test_tags_acl_and_class_of_a_file",
          "fs/test_tags_and_acls.py::test_some_tag_sets_and_acls", "fs/test_tags_and_acls.py::test_two_hundred_tag_sets_and_acls")),
        ("object tagging", "`user.zos.tag.KEY`, `user.zos.tags`",
         ("fs/test_features.py::test_tags_acl_and_class_of_a_file", "fs/test_tags_and_acls.py::test_a_dump_shows_them_and_ls_asks_for_none",
          "admin/test_objects.py::test_any_tags_come_back",
          "admin/test_objects.py::test_tags_over_the_limits")),
        ("legal hold, retention", "`user.zos.legal-hold`, `user.zos.retention`; options `legal_hold`, `retention`; what is locked is `EPERM`",
         ("admin/test_objects.py::test_locks_hold", "admin/test_objects.py::test_no_lock_without_object_lock",
          "fs/test_locks.py::test_what_is_written_is_locked", "fs/test_locks.py::test_what_a_lock_refuses_is_eperm_with_the_reason",
          "fs/test_locks.py::test_what_is_refused_because_of_a_lock_stays_staged")),
        ("RestoreObject", "`user.zos.restore`; `zosfs restore PATH…`",
         ("admin/test_zos.py::test_thawing", "fs/test_archive.py::test_thawing_through_the_attribute",
          "fs/test_archive.py::test_a_thaw_that_is_refused_is_said_and_the_others_go_on",
          "admin/test_objects.py::test_restore_says_what_the_server_lacks", "admin/test_objects.py::test_restore_states")),
        ("GetObject of an archived object", "`open` fails with `EREMOTEIO`, the log names the command that thaws it; thawed it is read",
         ("fs/test_archive.py::test_refused_at_open_and_read_once_thawed",
          "fs/test_archive.py::test_what_replaces_an_archived_file_needs_no_thawing")),
        ("storage class", "`user.zos.storage-class`: set moves the object",
         ("admin/test_objects.py::test_storage_class_in_place",)),
        ("ListObjectVersions, Get and Delete by VersionId", "`zosfs versions PATH`, `zosfs versions restore`; `-o versions`: `name@VERSION-ID`; "
         "`-o at=TIME`: the bucket as it was",
         ("admin/test_commands.py::test_versions_and_bringing_back", "fs/test_moment.py::test_the_bucket_as_it_was",
          "fs/test_moment.py::test_older_versions_beside_the_current_one", "fs/test_moment.py::test_own_changes_show_their_older_versions_at_once",
          "fs/test_moment.py::test_a_deleted_file_is_brought_back_by_one_command")),
        ("presigned URLs (GET, PUT; V2, V4), presigned POST", "`user.zos.url`; `zosfs presign [--put|--post|--html]`",
         ("admin/test_presign.py::test_urls_that_write_and_read", "admin/test_presign.py::test_upload_forms",
          "admin/test_presign.py::test_what_is_refused", "admin/test_presign.py::test_a_version_and_a_path_on_a_mount")),
        ("metadata search (md_search)", "`zosfs search QUERY PATH`",
         ("admin/test_zos.py::test_search_page_by_page", "admin/test_zos.py::test_search_on_servers_without_an_index")),
        ("image processing (process_object, GetObject with ZosProcess)", "`zosfs image SRC [DST] --process CHAIN`",
         ("admin/test_zos.py::test_an_image_is_downloaded_processed", "admin/test_zos.py::test_an_image_is_processed_into_another_key",
          "admin/test_images.py::test_refused_before_it_is_sent", "admin/test_zos.py::test_images_on_servers_that_process_none")),
        ("symbolic links", "`ln -s`, in s3fs's format",
         ("fs/test_posix.py::test_symlinks", "fs/test_s3fs_trade.py::test_s3fs_reads_what_zosfs_wrote")),
        ("GetUsageStats", "`zosfs usage`",
         ("admin/test_zos.py::test_usage_of_the_account", "admin/test_commands.py::test_usage_and_restore",
          "admin/test_zos.py::test_usage_where_it_is_not_told")),
    ),
    "Multipart uploads": (
        ("Create, Upload, Complete, Abort, ListParts", "writing large files",
         ("store/test_verbs.py::test_multipart", "content/test_delivery.py::test_an_upload_is_continued",
          "fs/test_programs.py::test_sha256sum_of_a_large_file")),
        ("ListMultipartUploads", "`zosfs uploads list`, `zosfs uploads abort --older-than AGE`", ("admin/test_commands.py::test_uploads",)),
    ),
    "Topics, roles, errors": (
        ("topics: create, get, list, delete", "`zosfs topic`", ("admin/test_topics.py::test_topics",)),
        ("bucket notification", "setting `notification`", ("fs/test_settings.py::test_notification_on_ceph",)),
        ("notifications as a mount's ears", "option `notify`: what other hosts change shows at once",
         ("mount/test_events.py::test_others_changes_show_at_once", "mount/test_events.py::test_own_changes_cost_nothing_more",
          "mount/test_events.py::test_strangers_are_not_heard")),
        ("STS AssumeRole", "options `role_arn`, `role_session_name`, `role_policy`, `role_duration`; `zosfs sts`",
         ("admin/test_zos.py::test_a_set_of_temporary_credentials",
          "admin/test_zos.py::test_requests_are_signed_with_the_roles_keys_and_those_are_renewed",
          "admin/test_zos.py::test_roles_that_cannot_be", "store/test_roles.py::test_a_mount_with_a_role_that_reads")),
        ("the tables of error codes", "one errno and one line each",
         ("store/test_error_codes.py::test_a_documented_error", "store/test_error_codes.py::test_the_same_through_boto3",
          "store/test_error_codes.py::test_every_row_of_the_table_is_produced_and_says_it_in_one_line")),
        ("members and operations that only ZOS has", "a document of extras inside the package, loaded by the store's room alone",
         ("store/test_connect.py::test_what_zos_adds_is_known_to_our_clients_and_to_no_other",)),
        ("extended attributes as programs use them", "size probes, `XATTR_CREATE`, `XATTR_REPLACE`; `cp -a`, `rsync -X`, `tar --xattrs`, `getfattr -d`",
         ("fs/test_xattrs.py::test_flags_of_setxattr", "fs/test_xattrs.py::test_the_size_is_asked_first",
          "fs/test_xattrs.py::test_refused_before_anything_is_sent", "fs/test_xattrs.py::test_what_listing_and_copying_cost",
          "fs/test_xattrs.py::test_copying_programs_carry_them_and_complain_of_nothing", "fs/test_posix.py::test_foreign_extended_attributes")),
    ),
}  # fmt: skip

_CEPH = "fs/test_settings.py::test_set_get_remove_on_ceph"
_LACKING = "fs/test_settings.py::test_what_ceph_does_not_offer_is_refused_and_the_bucket_stays"
_WEED = "fs/test_settings.py::test_on_seaweedfs"
_ZOS = "admin/test_zos.py::test_settings_that_ceph_lacks"
SETTING_TESTS: Mapping[str, tuple[str, ...]] = {
    "acl": (_CEPH,), "policy": (_CEPH,), "lifecycle": (_CEPH,), "website": (_LACKING, _ZOS), "request-payment": (_CEPH,),
    "tags": (_CEPH, _WEED), "encryption": (_LACKING, _WEED), "object-lock": ("fs/test_settings.py::test_object_lock_on_ceph",),
    "logging": (_LACKING, _ZOS), "cors": (_CEPH, _WEED), "versioning": (_CEPH, _WEED),
    "notification": ("fs/test_settings.py::test_notification_on_ceph",),
}  # fmt: skip

_FACTS = "fs/test_posix.py::test_extended_attributes"
_KINDS = "fs/test_features.py::test_versions_and_kinds_of_objects"
_OBJECT = "fs/test_features.py::test_tags_acl_and_class_of_a_file"
_WARM = "fs/test_warmup.py::test_a_warm_file_is_read_without_the_network_even_after_a_remount"
_EVICT = "fs/test_warmup.py::test_evicted_is_fetched_again_and_the_undelivered_stays"
_READ_ONLY = "fs/test_warmup.py::test_a_mount_that_is_read_only_is_warmed_up_and_evicted"
ATTRIBUTE_TESTS: Mapping[str, tuple[str, ...]] = {
    "cached": (_WARM,), "warm.": (_WARM, _READ_ONLY), "evict": (_EVICT, _READ_ONLY),
    "etag": (_FACTS,), "version-id": (_KINDS,),
    "object-type": (_KINDS,), "content-type": (_FACTS,), "uri": (_OBJECT,),
    "refresh": ("fs/test_features.py::test_others_changes_show_when_it_is_asked_for",),
    "stats": ("mount/test_whole.py::test_mount_status_stats_umount",), "status": ("mount/test_whole.py::test_mount_status_stats_umount",),
    "tags": (_OBJECT,), "acl": (_OBJECT, "admin/test_objects.py::test_acl_words_grants_and_json"),
    "legal-hold": ("admin/test_objects.py::test_locks_hold", "fs/test_locks.py::test_what_is_written_is_locked"),
    "retention": ("fs/test_locks.py::test_what_a_lock_refuses_is_eperm_with_the_reason", "admin/test_objects.py::test_locks_hold", "admin/test_objects.py::test_retention_forms"),
    "restore": (_OBJECT, "fs/test_archive.py::test_thawing_through_the_attribute"),
    "storage-class": (_OBJECT, "admin/test_objects.py::test_storage_class_in_place"), "url": (_OBJECT,),
    "meta.": (_FACTS,), "bucket.": (_CEPH,), "tag.": (_OBJECT,),
}  # fmt: skip

COMMAND_TESTS: Mapping[str, tuple[str, ...]] = {
    "warmup": (_WARM,),
    "cache": (_EVICT, "fs/test_warmup.py::test_the_cache_commands_without_a_mount"),
    "mount": ("mount/test_whole.py::test_mount_status_stats_umount", "fs/test_mounting.py::test_background_is_the_default"),
    "umount": ("mount/test_whole.py::test_mount_status_stats_umount",),
    "status": ("mount/test_whole.py::test_mount_status_stats_umount",),
    "stats": ("mount/test_whole.py::test_mount_status_stats_umount",),
    "journal": ("fs/test_journal.py",),
    "install": ("mount/test_mount8.py", "test_man_page.py"),
    "doctor": (
        "mount/test_whole.py::test_doctor_knows_a_good_bucket_from_a_missing_one",
        "mount/test_whole.py::test_doctor_tells_what_the_server_can_do_and_leaves_nothing",
    ),
    "demo": ("test_demo.py",),
    "cp": ("admin/test_copies.py",),
    "bucket": ("admin/test_commands.py::test_bucket", "admin/test_commands.py::test_the_settings_of_a_bucket_are_listed"),
    "versions": ("admin/test_commands.py::test_versions_and_bringing_back", "fs/test_moment.py::test_a_deleted_file_is_brought_back_by_one_command"),
    "restore": ("admin/test_zos.py::test_thawing", "fs/test_archive.py"),
    "presign": ("admin/test_presign.py",),
    "uploads": ("admin/test_commands.py::test_uploads",),
    "usage": ("admin/test_zos.py::test_usage_of_the_account", "admin/test_commands.py::test_usage_and_restore"),
    "image": ("admin/test_zos.py::test_an_image_is_downloaded_processed", "admin/test_images.py"),
    "search": ("admin/test_zos.py::test_search_page_by_page",),
    "topic": ("admin/test_topics.py",),
    "sts": ("admin/test_zos.py::test_a_set_of_temporary_credentials",),
    "completion": ("admin/test_help.py::test_bash_completes_commands_and_flags",),
    "options": ("mount/test_command_line.py::test_the_page_of_options_is_that_of_the_table",),
}
_CEPH_FIXTURES = frozenset({"rgw", "rgw_bucket", "on_rgw", "on_ceph", "gateway", "heard"})
_WEED_FIXTURES = frozenset({"weed", "weed_mount"})
_BOTH_FIXTURES = frozenset({"server", "commands", "account", "bucket", "place", "mount", "shared", "shared_bucket", "s3", "run", "point"})
_STANDIN_FIXTURES = frozenset({"zos", "standin", "archive"})


@cache
def tests_of(file: str) -> Mapping[str, frozenset[str]]:
    """The tests of *file* (below tests/) and the fixtures that each asks for."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    return {
        node.name: frozenset(argument.arg for argument in node.args.args)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def exists(name: str) -> bool:
    """Whether a test (or a file of tests) of that name is there."""
    file, _, test = name.partition("::")
    return (ROOT / "tests" / file).is_file() and (test in tests_of(file) if test else bool(tests_of(file)))


def servers(names: Sequence[str]) -> str:
    """Against what these tests run, by the fixtures that they ask for."""
    asked: set[str] = set()
    for name in names:
        file, _, test = name.partition("::")
        for one, fixtures in tests_of(file).items():
            if not test or one == test:
                asked |= fixtures
    narrow = asked & (_CEPH_FIXTURES | _WEED_FIXTURES | _STANDIN_FIXTURES)
    both = bool(asked & _BOTH_FIXTURES) and not (narrow and asked & _BOTH_FIXTURES <= {"mount"})
    found = []
    if both or asked & _CEPH_FIXTURES:
        found.append("Ceph")
    if both or asked & _WEED_FIXTURES:
        found.append("SeaweedFS")
    if asked & _STANDIN_FIXTURES:
        found.append("stand-in")
    return ", ".join(found) or "–"


def _line(first: Sequence[str], names: Sequence[str]) -> str:
    cells = [*first, servers(names), "<br>".join(f"`{name}`" for name in names)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page, ending with a newline."""
    lines = [
        "# What the object store can do, and how to have it", "",
        "Made by `python -m tests.features > docs/features.md`; change the registries and `tests/features.py`, not this page. The last",
        "columns say which tests show it and on which servers: Ceph is a real RADOS gateway, the software of ZOS; what Ceph lacks is tried",
        "against a stand-in that answers exactly the requests which ZOS's manuals document.", "",
    ]  # fmt: skip
    for title, rows in ROWS.items():
        lines += [f"## {title}", "", "| API | in zosfs | servers | tests |", "|---|---|---|---|"]
        lines += [_line((api, door), names) for api, door, names in rows]
        lines.append("")
    lines += ["## Bucket settings", "", "| setting | what it is | short words | servers | tests |", "|---|---|---|---|---|"]
    lines += [
        _line((f"`{name}`", setting.help, " ".join(f"`{word}`" for word in setting.words)), SETTING_TESTS.get(name, ()))
        for name, setting in SETTINGS.items()
    ]
    lines += ["", "## Attributes", "", "Names after `user.zos.`; a dot at the end: followed by a name.", ""]
    lines += ["| attribute | set | remove | servers | tests |", "|---|---|---|---|---|"]
    lines += [
        _line((f"`{name}`", "yes" if row.set else "", "yes" if row.remove else ""), ATTRIBUTE_TESTS.get(name, ()))
        for name, row in {**XATTRS, **PREFIXES}.items()
    ]
    lines += ["", "## Commands", "", "| command | what it does | example | servers | tests |", "|---|---|---|---|---|"]
    lines += [
        _line((f"`{name}`", help, "<br>".join(f"`{line}`" for line in EXAMPLES.get(name, ()))), COMMAND_TESTS.get(name, ()))
        for name, _, help in COMMANDS
    ]
    lines += ["", "## Operations of `zosfs image`", "", "| operation | parameters |", "|---|---|"]
    lines += [f"| `{name}` | {operation.help} |" for name, operation in OPERATIONS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
