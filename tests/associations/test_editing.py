import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_pools import direct, exposure, grism, make

from associations.association import Association, AssociationError, Member, Product
from associations.differences import find_differences
from associations.edit import add_members, associate_files, choose_members, remove_members
from associations.generator import generate
from associations.watch_list import Needed, watch_list


def association(*members: tuple[str, str], name: str = "p", asn_type: str = "image3") -> Association:
    return Association(asn_type, (Product(name, tuple(Member(*member) for member in members)),), "a_asn.json")


PAIR = association(("a_cal.fits", "science"), ("b_cal.fits", "background"))


def names(asn: Association) -> list[str]:
    return [member.expname for member in asn.members]


# ---- edit


def test_a_member_is_added_to_every_product_by_its_base_name():
    two = PAIR.with_(products=(*PAIR.products, Product("q", (Member("c_cal.fits", "science"),))))
    added = add_members(two, ["/data/d_cal.fits"], "background")
    assert [product.members[-1] for product in added.products] == [Member("d_cal.fits", "background")] * 2


def test_a_member_that_is_there_is_not_added_again():
    assert add_members(PAIR, ["a_cal.fits", "a_cal.fits"]) == PAIR


def test_a_member_is_removed_by_its_name_or_whatever_its_suffix(caplog):
    assert names(remove_members(PAIR, ["a_cal.fits"])) == ["b_cal.fits"]
    assert names(remove_members(PAIR, ["a_rate.fits"])) == names(PAIR)
    assert "no member a_rate.fits" in caplog.text
    assert names(remove_members(PAIR, ["a_rate.fits"], ignore_suffix=True)) == ["b_cal.fits"]


def test_a_product_that_lost_its_last_member_goes():
    two = PAIR.with_(products=(*PAIR.products, Product("q", (Member("c_cal.fits", "science"),))))
    assert [product.name for product in remove_members(two, ["c_cal.fits"]).products] == ["p"]


def test_an_association_without_members_is_refused():
    with pytest.raises(AssociationError, match="no member would be left"):
        remove_members(PAIR, names(PAIR))
    with pytest.raises(AssociationError, match="it has background, science"):
        choose_members(PAIR, ["psf"])


def test_members_are_chosen_by_role_and_lose_their_folder():
    asn = association(("night/a_cal.fits", "science"), ("b_cal.fits", "background"))
    assert names(choose_members(asn, ["science"])) == ["a_cal.fits"]
    assert names(choose_members(asn, without=["science"])) == ["b_cal.fits"]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True))
def test_what_was_added_can_be_removed(letters):
    files = [f"{letter}x_cal.fits" for letter in letters]
    assert remove_members(add_members(PAIR, files), files) == PAIR


# ---- of a list


def test_a_list_makes_one_product_of_level_3():
    asn = associate_files(["a_cal.fits", "b_cal.fits"], "l3.json", product="all", roles=["science", "psf"])
    assert asn.products == (Product("all", (Member("a_cal.fits", "science"), Member("b_cal.fits", "psf"))),)


def test_a_list_makes_a_product_of_each_file_of_level_2():
    asn = associate_files(["a_rate.fits", "night/b_rate.fits"], "l2.json", level=2)
    assert [product.name for product in asn.products] == ["a", "night/b"]
    assert asn.asn_id == "o999"


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [({}, "needs the name"), ({"level": 2, "asn_id": "a3001"}, "such as o001"), ({"names": []}, "at least one file")],
)
def test_a_list_that_makes_no_association_is_refused(keywords, expected):
    with pytest.raises(AssociationError, match=expected):
        associate_files(**{"names": ["a_cal.fits"], "file_name": "l.json", **keywords})


# ---- differences


def test_equal_sets_do_not_differ_whatever_their_order_numbers_and_versions():
    made = generate(make(direct(1, 1), direct(1, 2), grism(1, 3)))
    other = [asn.with_(version_id="now", file_name="x", asn_rule="y") for asn in reversed(made)]
    assert find_differences(made, other) == ()


def test_products_and_members_added_removed_and_in_another_role_are_told():
    before = [PAIR, association(("c_cal.fits", "science"), name="gone")]
    now = [
        association(("a_cal.fits", "psf"), ("n_cal.fits", "science")),
        association(("d_cal.fits", "psf"), name="new"),
    ]
    changed, gone, new = sorted(find_differences(before, now), key=lambda change: change.kind.replace("added", "z"))
    assert (gone.kind, gone.name, gone.removed) == ("removed", "gone", (("c_cal.fits", "science"),))
    assert (new.kind, new.name, new.added) == ("added", "new", (("d_cal.fits", "psf"),))
    assert changed.added == (("n_cal.fits", "science"),)
    assert changed.removed == (("b_cal.fits", "background"),)
    assert changed.moved == (("a_cal.fits", "science", "psf"),)


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
    st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
)
def test_differences_read_backwards_are_turned_round(before, now):
    one, two = ([association(*((f"{x}_cal.fits", "science") for x in letters))] for letters in (before, now))
    there, back = find_differences(one, two), find_differences(two, one)
    assert [change.added for change in there] == [change.removed for change in back]
    assert bool(there) is (set(before) != set(now))


# ---- what an association waits for


def test_a_slitless_exposure_waits_for_its_rate_and_for_the_products_of_its_direct_image():
    pool = make(direct(1, 1, expspcin="1"), grism(1, 2, expspcin="2"), direct(1, 3, expspcin="3"))
    spec2 = next(asn for asn in generate(pool) if asn.asn_type == "spec2")
    assert [(file.role, file.required, file.stage) for file in watch_list(spec2)] == [
        ("science", True, "detector1"),
        ("direct_image", True, "image3"),
        ("sourcecat", True, "image3"),
        ("segmap", True, "image3"),
    ]


def test_backgrounds_and_acquisitions_are_optional_and_come_last():
    asn = association(
        ("t_cal.fits", "target_acquisition"), ("b_x1d.fits", "background"), ("a_cal.fits", "science"), asn_type="spec3"
    )
    assert watch_list(asn) == (
        Needed("a_cal.fits", "science", True, "spec2"),
        Needed("t_cal.fits", "target_acquisition", False, "image2"),
        Needed("b_x1d.fits", "background", False, "spec2"),
    )


def test_every_generated_member_has_a_known_stage():
    rows = [direct(1, 1), grism(1, 2), exposure(2, 1, exp_type="nis_ami", pupil="nrm", subarray="sub80")]
    stages = {file.stage for asn in generate(make(*rows)) for file in watch_list(asn)}
    assert stages == {"detector1", "image2", "spec2", "image3"}
