import pytest

from infra.products.names import base_of, rename, suffix_of


@pytest.mark.parametrize(
    ("name", "base", "suffix"),
    [
        ("s3://b/jw01234001001_02101_00001_nis_uncal.fits", "jw01234001001_02101_00001_nis", "uncal"),
        ("jw01234001001_02101_00001-seg002_nis_rateints.fits", "jw01234001001_02101_00001-seg002_nis", "rateints"),
        ("jw01234-o001_t001_niriss_clear-f200w_cat.ecsv", "jw01234-o001_t001_niriss_clear-f200w", "cat"),
        ("jw01234-o001_t001_niriss_gr150r-f200w", "jw01234-o001_t001_niriss_gr150r-f200w", None),
    ],
)
def test_a_name_splits_into_base_and_suffix(name, base, suffix):
    assert base_of(name) == base
    assert suffix_of(name) == suffix


def test_a_product_is_renamed_by_its_suffix():
    assert rename("a/b/jw01234001001_02101_00001_nis_rate.fits", "cal") == "jw01234001001_02101_00001_nis_cal.fits"
