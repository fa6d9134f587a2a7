import numpy as np
import pytest
from pydantic import BaseModel, Field

from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References
from tasks.step import STEPS, Options, StepOptions, StepSkipped, step

NONE = References({"flat": "/somewhere/jwst_niriss_flat_0001.fits"}, "jwst_0001.pmap")


class FlatOptions(BaseModel, frozen=True, extra="forbid"):
    factor: float = Field(2.0, gt=0, description="a factor")


def image() -> Image:
    data = np.ones((2, 2), np.float32)
    return Image(Header({}), data, data, None)


@pytest.fixture(autouse=True)
def known():
    """The steps that are known stay as they are: what is made here takes the names of real ones."""
    known = dict(STEPS)
    yield
    STEPS.clear()
    STEPS.update(known)


@pytest.fixture
def flat_field():
    @step("flat_field", references=("flat",), options=FlatOptions)
    def flat_field(image, references, options):
        """Multiply."""
        if options.factor > 100:
            raise StepSkipped("too much")
        return image.with_(data=image.data * options.factor)

    return flat_field


def test_a_step_that_ran_says_so_in_header_and_recipe(flat_field):
    done = flat_field.fn(image(), NONE, FlatOptions(factor=3))
    assert done.data[0, 0] == 3
    assert done.header["S_FLAT"] == "COMPLETE"
    assert done.header["R_FLAT"] == "crds://jwst_niriss_flat_0001.fits"
    assert done.recipe["flat_field"]["options"] == {"factor": 3.0}


def test_the_options_of_the_run_reach_the_step(flat_field):
    options = Options({"flat_field": StepOptions(FlatOptions(factor=5))})
    assert flat_field.fn(image(), NONE, options).data[0, 0] == 5


def test_a_step_with_nothing_to_do_is_skipped_with_the_reason(flat_field):
    done = flat_field.fn(image(), NONE, FlatOptions(factor=101))
    assert done.header["S_FLAT"] == "SKIPPED"
    assert done.recipe["flat_field"] == {"number": 1, "status": "SKIPPED", "reason": "too much"}
    assert done.data[0, 0] == 1


def test_a_step_that_is_switched_off_does_not_run(flat_field):
    done = flat_field.fn(image(), NONE, Options({"flat_field": StepOptions(FlatOptions(), skip=True)}))
    assert done.data[0, 0] == 1
    assert done.header["S_FLAT"] == "SKIPPED"


def test_each_product_of_a_tuple_is_recorded(flat_field):
    first, second = (
        flat_field.fn(image(), NONE, Options({"flat_field": StepOptions(FlatOptions(), skip=True)})),
        image(),
    )
    assert first.header["S_FLAT"] == "SKIPPED"
    assert "S_FLAT" not in second.header


def test_a_step_that_writes_into_its_input_fails_at_once():
    @step("photom")
    def photom(image, references, options):
        """Spoil."""
        image.data[:] = 0
        return image

    with pytest.raises(ValueError, match="read-only"):
        photom.fn(image(), NONE, Options())
