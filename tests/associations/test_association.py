import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from associations.association import (
    Association,
    AssociationError,
    Member,
    Product,
    read_association,
    single_association,
)

SMALL = {"products": [{"name": "a", "members": [{"expname": "a_cal.fits", "exptype": "science"}]}]}
NAME = "jw01571-o001_image3_00002_asn.json"


def changed(**keys) -> str:
    """The small association with another product, or other keys in its product or member."""
    tree = json.loads(json.dumps(SMALL))
    for key, value in keys.items():
        if key in ("expname", "exptype"):
            tree["products"][0]["members"][0][key] = value
        elif key in ("name", "members"):
            tree["products"][0][key] = value
        else:
            tree[key] = value
    return json.dumps(tree)


def refusal(text: str) -> str:
    with pytest.raises(AssociationError) as caught:
        read_association(text, NAME)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(NAME)
    return message


def test_a_file_without_the_optional_keys_is_read():
    association = read_association(json.dumps(SMALL), NAME)
    assert association.products == (Product("a", (Member("a_cal.fits", "science"),)),)
    assert association.asn_id is None
    assert association.file_name == NAME


def test_the_type_is_taken_from_the_name_of_the_file_if_the_file_does_not_tell():
    assert read_association(json.dumps(SMALL), NAME).asn_type == "image3"
    assert read_association(changed(asn_type="coron3"), NAME).asn_type == "coron3"


def test_a_product_without_a_name_is_named_after_its_science_member():
    assert read_association(changed(name=None), NAME).products[0].name == "a"


def test_keys_that_we_do_not_know_are_kept():
    tree = json.loads(changed(wizard="who"))
    tree["products"][0]["members"][0]["tweakreg_catalog"] = "a.ecsv"
    again = json.loads(read_association(json.dumps(tree), NAME).to_json())
    assert again["wizard"] == "who"
    assert again["products"][0]["members"][0]["tweakreg_catalog"] == "a.ecsv"


def test_a_comment_is_refused_with_its_line_and_column():
    message = refusal('{"asn_type": "image3",\n  // mine\n "products": []}')
    assert "line 2, column 3" in message
    assert "no comments" in message


def test_a_cut_file_is_refused_with_its_line_and_column():
    assert "line 1, column" in refusal(json.dumps(SMALL)[:-4])
    assert "line 1, column 1" in refusal("")


def test_a_key_that_stands_twice_is_refused_where_it_stands():
    text = '{"products": [{"name": "a",\n "members": [],\n  "name": "b"}]}'
    assert "line 3, column 3" in refusal(text)


def test_endless_nesting_is_refused():
    assert "nested" in refusal("[" * 100_000)


@pytest.mark.parametrize(
    "expname", ["/etc/passwd", "../a_cal.fits", "b/../../a", "s3://bucket/a", "C:\\a", "a\x00b", "..\\a"]
)
def test_a_member_that_leads_out_of_the_folder_is_refused(expname):
    assert "products[0].members[0].expname" in refusal(changed(expname=expname))


def test_a_member_in_a_folder_below_is_fine():
    assert read_association(changed(expname="night2/a_cal.fits"), NAME)


def test_a_product_that_leads_out_of_the_folder_is_refused():
    assert "products[0].name" in refusal(changed(name="../../home/a"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "an object"),
        ("{}", "'products'"),
        ('{"products": {}}', "a list"),
        ('{"products": []}', "at least one product"),
        (changed(members=[]), "at least one member"),
        (changed(members=["a"]), "an object {...} for products[0].members[0]"),
        (changed(expname=None), "a text in products[0].members[0].expname"),
        (changed(exptype=3), "a text for products[0].members[0].exptype"),
        (changed(asn_id=["o001"]), "a text for asn_id"),
    ],
)
def test_what_is_no_association_is_refused_with_what_was_expected(text, expected):
    assert expected in refusal(text)


words = st.text("abcxyz019-_{}", min_size=1, max_size=12)
members = st.builds(Member, words, words.map(str.lower), st.none() | words, st.none() | words)
products = st.builds(Product, words, st.lists(members, min_size=1, max_size=4).map(tuple))
associations = st.builds(
    Association,
    asn_type=words,
    products=st.lists(products, min_size=1, max_size=3).map(tuple),
    file_name=st.just(NAME),
    asn_id=st.none() | words,
    constraints=st.none() | st.text(max_size=20),
    degraded_status=st.none() | words,
)


@given(associations)
def test_what_is_written_is_read_as_it_was(association):
    assert read_association(association.to_json(), NAME) == association


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_other_json_is_refused_in_one_line(tree):
    refusal(json.dumps(tree))


def test_a_single_file_stands_for_an_association_with_it():
    association = single_association("a_rate.fits", "a")
    assert association.products[0].of_role("science") == (Member("a_rate.fits", "science"),)
    assert association.asn_id is None
