"""Where the pixels are in a raw frame of NIRSpec's IRS2 readout, which has reference pixels between those of the detector.

Each of the four amplifiers reads eight pixels, steps out to read four reference pixels, steps back for sixteen pixels, and
so on; a fifth output reads no pixel at all. Raw frames are therefore 3200 pixels along the fast axis, the rows of the file:
the reference output and four amplifiers, 640 each. Source: JWST pipeline documentation, "refpix", section "NIRSpec IRS2".
"""

import numpy as np

#: Pixels of the detector between two visits of reference pixels, and reference pixels of a visit.
NORMAL, REFERENCE = 16, 4
PERIOD = NORMAL + REFERENCE
#: The reference output and the amplifiers, and how many pixels of a raw frame each has.
OUTPUTS, SECTION = 5, 640
#: Pixels of a raw frame along its fast axis.
WIDTH = OUTPUTS * SECTION
#: Lines of a whole frame.
LINES = 2048


def reference_rows() -> np.ndarray:
    """Which rows of a raw frame are interleaved reference pixels, or the reference output at their time: (3200,) bool."""
    return (np.arange(WIDTH) - NORMAL // 2) % PERIOD < REFERENCE


def science_rows(fastaxis: int) -> np.ndarray:
    """The rows of a raw frame that are rows of the detector, ascending: (2048,) intp; ``fastaxis`` as the keyword."""
    is_science = ~reference_rows()
    is_science[:SECTION] = False
    return np.flatnonzero(is_science if fastaxis > 0 else is_science[::-1])
