"""Data quality bits, as NumPy scalars of the type of the arrays that carry them.

Values: JWST pipeline documentation, "Data quality flags". Pixel flags are ``uint32``, group flags ``uint8``; a Python
``IntFlag`` would turn a ``uint32`` array into ``int64``.
"""

import numpy as np

_NAMES = (
    "DO_NOT_USE SATURATED JUMP_DET DROPOUT OUTLIER PERSISTENCE AD_FLOOR CHARGELOSS UNRELIABLE_ERROR NON_SCIENCE DEAD HOT "
    "WARM LOW_QE RC TELEGRAPH NONLINEAR BAD_REF_PIXEL NO_FLAT_FIELD NO_GAIN_VALUE NO_LIN_CORR NO_SAT_CHECK UNRELIABLE_BIAS "
    "UNRELIABLE_DARK UNRELIABLE_SLOPE UNRELIABLE_FLAT OPEN ADJ_OPEN FLUX_ESTIMATED MSA_FAILED_OPEN OTHER_BAD_PIXEL "
    "REFERENCE_PIXEL"
).split()

#: Mnemonic -> bit of the pixel DQ planes (PIXELDQ and DQ).
PIXEL = {name: np.uint32(1 << bit) for bit, name in enumerate(_NAMES)}

#: Mnemonic -> bit of the group DQ plane (GROUPDQ).
GROUP = {name: np.uint8(1 << bit) for bit, name in enumerate(_NAMES[:8])}
