"""What a rule is: data that the generator evaluates by grouping."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from associations.constraints import Condition, is_set, is_unset, none_of, one_of, unless
from associations.exposure import Exposure

#: Columns that all exposures of a level 2 association share, and those of its optical path.
BASE = ("program", "tsovisit")
MODE = ("instrume", "detector", "elem1", "elem2", "fxd_slit", "subarray", "channel")

#: Columns of the optical path in level 3.
OPTICS = ("filter", "elem2", "slitclass", "subarray")

HAS_PROGRAM = is_set("program")
HAS_MODE = is_set("instrume", "detector", "elem1")
MODE_OK = (
    HAS_MODE,
    none_of("filter", ["opaque"]),
    unless("it is no grism time series of nrcblong", exp_type="nrc_tsgrism", detector="nrcblong"),
    unless("it is no wavefront sensing visit", wfsc=True),
)
SCIENCE = one_of("role", ["science", "psf"])
HAS_SUBARRAY = is_set("subarray")
LEVEL3_BASE = (is_set("program", "instrume"), is_unset("is_imprt"))
CONSISTENT = unless("it is not flagged both psf and background", contradicts=True)


#: Images that are combined on the sky.
IMAGE3_TYPES = frozenset("nrc_image mir_image nis_image fgs_image nrs_mimf".split())


def is_not_science(exposure: Exposure) -> bool:
    """Whether it plays another role, such as PSF reference."""
    return exposure["role"] != "science"


class Finish(Enum):
    """What is done to a level 2 association when its members are found."""

    NONE = "nothing"
    PRUNE_IMPRINTS = "keep the imprints that suit the science exposure"
    PRUNE_GROUP_IMPRINTS = "keep the imprints that suit the science exposures of the nod group"
    DIRECT_IMAGE = "replace the direct images by the products of the one taken next after the grism"
    PARALLEL_IMAGE = "replace the direct images by the products of the first long-wave one"


@dataclass(frozen=True)
class Companions:
    """Exposures that join the science exposure of a level 2 association.

    Attributes
    ----------
    where : tuple of Condition
        Which exposures.
    key : tuple of str
        Columns in which they agree with the science exposure.
    role : str
        The role that they play; None: each its own.
    unless : function
        (science exposure, companion) -> whether the two must not meet.
    """

    where: tuple[Condition, ...]
    key: tuple[str, ...]
    role: str | None = None
    unless: Callable[[Exposure, Exposure], bool] | None = None


@dataclass(frozen=True)
class Level2Rule:
    """One association for each exposure that passes ``seed``, with its companions.

    Attributes
    ----------
    name : str
        As in ``asn_rule``, without prefix.
    key : tuple of str
        Columns of the group, for messages and for imprints that are chosen for a whole nod group.
    scopes : tuple of str
        Types of candidates that it makes associations of. Of one of type background it makes only those that have a
        background member by its own flags.
    keeps_coronagraphic_integrations : bool
        False: a coronagraphic exposure is averaged over its integrations.
    """

    name: str
    asn_type: str
    seed: tuple[Condition, ...]
    key: tuple[str, ...] = BASE
    companions: tuple[Companions, ...] = ()
    finish: Finish = Finish.NONE
    scopes: tuple[str, ...] = ("observation", "background")
    keeps_coronagraphic_integrations: bool = True

    level = 2


class Name(Enum):
    """How the products of a level 3 rule are named."""

    OPTICAL = "target, instrument, optics, slits, subarray"
    PATH = "target, instrument, optics"
    INSTRUMENT = "target, instrument"
    SOURCE = "source, instrument, optics, slits, subarray"
    SLIT_SOURCE = "target and source, instrument, optics, slit, subarray"
    IMAGE3 = "target, instrument, optics, subarray, image3"
    ACTIVITY = "target, instrument, optics, slits, subarray, detector, suffix, activity"


@dataclass(frozen=True)
class Level3Rule:
    """One association for each group of exposures that agree on ``key`` and, where ``target``, on the target.

    Attributes
    ----------
    where : tuple of Condition
        Which exposures.
    loose : function
        Exposure -> whether it has no target of its own: it joins all groups that agree on ``key``.
    auxiliary : bool
        Every member counts as science, except target acquisitions.
    needs : tuple of str
        Roles that must be there.
    least : int
        Members that must be there.
    scopes : tuple of str
        Types of scopes in which the rule works; empty: all but ``not_scopes``.
    several_observations : bool
        Whether in a candidate of several observations at least two must take part.
    x1d_twice : bool
        The science exposures of a nod are each other's background, as extracted spectra.
    optics : tuple of str
        Columns that give the optics in the name.
    """

    name: str
    asn_type: str
    where: tuple[Condition, ...]
    key: tuple[str, ...]
    target: bool = True
    loose: Callable[[Exposure], bool] = lambda exposure: False
    auxiliary: bool = False
    needs: tuple[str, ...] = ("science",)
    least: int = 1
    scopes: tuple[str, ...] = ()
    not_scopes: tuple[str, ...] = ()
    several_observations: bool = True
    x1d_twice: bool = False
    naming: Name = Name.OPTICAL
    optics: tuple[str, ...] = ("filter", "elem2")
    keeps_coronagraphic_integrations: bool = True

    level = 3
