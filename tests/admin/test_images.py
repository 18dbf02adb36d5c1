"""Chains of image operations: every documented parameter is checked before anything is sent."""

from __future__ import annotations

import base64
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.admin.images import OPERATIONS, POSITIONS, check_chain, encoded
from zosfs.admin.refusal import Refusal


@pytest.mark.parametrize(
    "chain",
    [
        "image/resize,w_300", "image/resize,w_1,h_4096,m_fixed", "image/resize,w_300,h_160,m_pad,color_ff00AA", "image/resize,p_50",
        "image/resize,w_500,h_500,limit_0/rotate,180", "image/crop,x_50,y_50,w_300,h_300,g_se", "image/rotate,0", "image/rotate,360",
        "image/rotate,180/crop,x_50,y_50,w_300,h_300,g_se", "image/rotate,45|image/resize,p_80", "image/format,webp", "image/info",
        "image/watermark,image_c2h1aXlpbi5wbmc=,t_50/resize,p_80", "image/watermark,image_c2h1aXlpbi5wbmc,t_0,x_4096,y_0,g_nw",
        "image/watermark,image_c2h1aXlpbi5wbmc_eC16b3MtcHJvY2Vzcz1pbWFnZS9yZXNpemUscF81MC9yb3RhdGUsMTgw",
        "image/watermark,text_SGVsbG8,color_FF0000,size_40,rotate_30,fill_1,shadow_50,type_d3F5LXplbmhlaQ==,voffset_-10",
        "image/indexcrop,x_200,i_1", "image/indexcrop,y_200,i_4", "image/strip", "image/quality,q_80", "image/quality,Q_80",
        "image/bright,-100", "image/contrast,100", "image/sharpen,50", "image/blur,r_1,s_50", "image/interlace,1", "image/auto-orient,0",
        "image/circle,r_100", "image/rounded-corners,r_30", "image/average-hue", "image/resize,w_300/strip/quality,q_90/format,jpg",
    ],
)  # fmt: skip
def test_what_the_manual_has(chain: str) -> None:
    assert check_chain(chain) == chain


def test_every_operation_is_tried_above() -> None:
    (marker,) = (mark for mark in test_what_the_manual_has.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    tried = {part.partition(",")[0] for chain in marker.args[1] for part in chain.replace("|image/", "/").split("/")[1:]}
    assert OPERATIONS.keys() <= tried


def test_blanks_around_parameters_go() -> None:
    assert check_chain(" image/watermark, image_c2h1aXlpbi5wbmc=, t_50 ") == "image/watermark,image_c2h1aXlpbi5wbmc=,t_50"


@pytest.mark.parametrize(
    ("chain", "line"),
    [
        ("", "does not begin with image/"),
        ("resize,w_1", "does not begin with image/"),
        ("image/", "does not begin with image/"),
        ("image/resize,w_1|rotate,1", "does not begin with image/"),
        ("image/shrink,w_1", "no operation"),
        ("image/resize", "needs one of w, h, p"),
        ("image/resize,w_0", "w: '0' is not a whole number from 1 to 4096"),
        ("image/resize,w_4097", "from 1 to 4096"),
        ("image/resize,h_1.5", "from 1 to 4096"),
        ("image/resize,w_1,m_stretch", "none of lfit, mfit, fill, pad, fixed"),
        ("image/resize,w_1,color_FFFFFF", "m_pad only"),
        ("image/resize,w_1,m_pad,color_red", "no color"),
        ("image/resize,w_1,limit_2", "none of 0, 1"),
        ("image/resize,p_0", "from 1 to 1000"),
        ("image/resize,p_50,w_3", "do not go together"),
        ("image/resize,w_3,w_4", "twice"),
        ("image/resize,width_3", "no parameter"),
        ("image/resize,w3", "no parameter"),
        ("image/crop", "needs one of"),
        ("image/crop,w_-1", "from 0"),
        ("image/crop,w_10,g_north-east", "none of nw"),
        ("image/rotate", "write rotate,VALUE"),
        ("image/rotate,361", "from 0 to 360"),
        ("image/rotate,90,91", "write rotate,VALUE"),
        ("image/watermark,t_50", "needs one of image, text"),
        ("image/watermark,text_a+b", "URL-safe"),
        ("image/watermark,image_c2h1aXlpbi5wbmc/eC16", "Base64 has _ for /"),
        ("image/watermark,text_QQ==,t_101", "from 0 to 100"),
        ("image/watermark,text_QQ==,x_4097", "from 0 to 4096"),
        ("image/watermark,text_Q", "not Base64"),
        ("image/watermark,text__w==", "not Base64 of a text"),
        ("image/watermark,text_" + encoded("x" * 65), "65 characters"),
        ("image/watermark,image_" + encoded("k?x-zos-process=image/rotate,1|image/rotate,2"), "by / only"),
        ("image/watermark,image_" + encoded("k?x-zos-process=image/rotate,999"), "own processing"),
        ("image/watermark,image_" + encoded("?x-zos-process=image/rotate,9"), "empty"),
        ("image/format,heic", "none of jpg"),
        ("image/info/rotate,90", "stands alone"),
        ("image/rotate,90|image/info", "stands alone"),
        ("image/info,x_1", "no parameter"),
        ("image/quality", "needs one of q, Q"),
        ("image/quality,q_101", "from 1 to 100"),
        ("image/bright,101", "from -100 to 100"),
        ("image/sharpen,49", "from 50 to 399"),
        ("image/blur,r_3", "lacks s"),
        ("image/indexcrop,x_3", "lacks i"),
        ("image/indexcrop,x_3,y_3,i_0", "do not go together"),
        ("image/circle", "lacks r"),
        ("image/interlace,2", "none of 0, 1"),
    ],
)
def test_refused_before_it_is_sent(chain: str, line: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_chain(chain)
    assert caught.value.errno == errno.EINVAL
    assert line in str(caught.value)


@given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=64))
def test_any_text_of_a_watermark_is_encoded_as_the_manual_says(text: str) -> None:
    value = encoded(text)
    assert not set("+/") & set(value)
    assert base64.b64decode(value.replace("-", "+").replace("_", "/")).decode() == text
    chain = f"image/watermark,text_{value},g_{POSITIONS[0]}"
    assert check_chain(chain) == chain


@given(st.text(max_size=60))
def test_any_words_are_checked_or_refused_and_nothing_else(words: str) -> None:
    for chain in (words, f"image/{words}", f"image/resize,{words}", f"image/watermark,text_{words}"):
        try:
            checked = check_chain(chain)
        except Refusal:
            continue
        assert check_chain(checked) == checked
