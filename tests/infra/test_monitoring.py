"""The lines that people see of a run."""

import logging
import weakref

import numpy as np

from infra.monitoring import Pixels, one_line_each

log = logging.getLogger("tasks.of_a_test")


def test_blocks_of_an_exposure_say_each_thing_once_and_count_pixels_together(caplog):
    caplog.set_level(logging.INFO)
    with one_line_each():
        for block in ([True, False, False], [True, True, False]):
            log.info("offsets from %d pixels", 12)
            log.info("%d pixels saturate above %g", Pixels(np.array(block)), 2.5)
            log.info("nothing to count")
        assert not caplog.messages
    assert caplog.messages == ["offsets from 12 pixels", "2 pixels saturate above 2.5", "nothing to count"]


def test_lines_that_differ_are_all_said(caplog):
    caplog.set_level(logging.INFO)
    with one_line_each():
        log.warning("group %d is lost", 1)
        log.warning("group %d is lost", 2)
    assert caplog.messages == ["group 1 is lost", "group 2 is lost"]


def test_a_line_that_waits_holds_nothing_but_its_words(caplog):
    caplog.set_level(logging.INFO)
    block = np.zeros(3)
    watch = weakref.ref(block)

    def skip(array: np.ndarray) -> None:
        try:
            raise ValueError("nothing to do")
        except ValueError as why:
            log.info("skipped, %s", why)

    with one_line_each():
        skip(block)
        del block
        assert watch() is None, "the trace of the exception holds the block"
    assert caplog.messages == ["skipped, nothing to do"]


def test_outside_lines_come_at_once(caplog):
    caplog.set_level(logging.INFO)
    with one_line_each():
        pass
    log.info("%d pixels", Pixels(np.ones((2, 2), bool)))
    assert caplog.messages == ["4 pixels"]
