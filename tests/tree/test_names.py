"""Names and parts of keys: reversible for every part, and for every legal name that no escape spells."""

from hypothesis import given
from hypothesis import strategies as st

from zosfs.tree.names import ESCAPE, ESCAPED, FILE, LONG, NAME_MAX, file_beside_directory, name_to_part, part_to_name

WORDS = st.sampled_from(
    ["", ".", "..", "a", ESCAPE, "empty", "file~", "raw~", "bytes~", "byte~", "\udcff", "nul~", "long~", "%41", "%FF", "\0", "x" * 100,
     "é", "~"]
)  # fmt: skip
PARTS = st.one_of(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=300),
    st.lists(WORDS, max_size=5).map("".join),
)
NAMES = st.one_of(
    st.binary(min_size=1, max_size=NAME_MAX),
    st.lists(WORDS, min_size=1, max_size=4).map(lambda w: "".join(w).encode("utf-8", "surrogateescape")),
).filter(lambda n: 0 < len(n) <= NAME_MAX and b"/" not in n and b"\0" not in n and n not in (b".", b".."))


@given(PARTS)
def test_every_part_has_a_legal_name_that_leads_back_to_it(part: str) -> None:
    name = part_to_name(part)
    assert 0 < len(name) <= NAME_MAX
    assert b"/" not in name
    assert b"\0" not in name
    assert name not in (b".", b"..")
    if not name.startswith(LONG.encode()):
        assert name_to_part(name) == part


@given(NAMES)
def test_every_legal_name_has_a_part_that_leads_back_to_it(name: bytes) -> None:
    if name.startswith((FILE.encode(), LONG.encode(), (ESCAPE + "bytes~").encode())):
        return  # these stand for something else by definition
    part = name_to_part(name)
    assert "/" not in part
    assert b"/" not in part.encode("utf-8", "surrogateescape")
    assert part_to_name(part) == name


@given(PARTS.filter(bool))
def test_what_a_part_is_called_otherwise_begins_with_the_escape(part: str) -> None:
    """The end of a listing looks at no other names for files that may have their plain name again."""
    name = file_beside_directory(part)
    assert name.startswith(ESCAPED)
    name.decode()


def test_a_file_of_odd_bytes_beside_a_directory() -> None:
    assert file_beside_directory("f\udcff") == b".zos~file~.zos~byte~f%FF"
    assert name_to_part(b".zos~file~.zos~byte~f%FF") == "f\udcff"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("a b", "中文", "😀", "%41", "a+b#c", ":", ".git", "..a", "x" * 255, "-", "n\nl", ".zos", ".zos~mine"):
        assert part_to_name(name) == name.encode()
        assert name_to_part(name.encode()) == name


def test_the_documented_escapes() -> None:
    assert part_to_name("") == b".zos~empty"
    assert part_to_name(".") == b".zos~dot"
    assert part_to_name("..") == b".zos~dotdot"
    assert part_to_name("f\udcff %") == b".zos~byte~f%FF %25"
    assert name_to_part(b".zos~file~foo") == "foo"
    assert part_to_name(".zos~empty") == b".zos~raw~.zos~empty"
    assert len(part_to_name("y" * 300)) <= NAME_MAX
