"""The files that an association waits for: what to look for before its pipeline can start."""

from dataclasses import dataclass

from associations.association import Association, Member

#: The stage that makes a file, by its suffix; a ``cal`` or ``x1d`` comes from stage 2, of images or of spectra.
_STAGE_OF_SUFFIX = {
    **dict.fromkeys(("rate", "rateints"), "detector1"),
    **dict.fromkeys(("i2d", "cat", "segm"), "image3"),
    **dict.fromkeys(("cal", "calints"), "stage2"),
    **dict.fromkeys(("x1d", "x1dints", "s2d", "s3d"), "spec2"),
    **dict.fromkeys(("crf", "crfints"), "stage3"),
}
_STAGE2 = {"image3": "image2", "wfs-image3": "image2", "coron3": "image2", "ami3": "image2", "spec3": "spec2"}
_REQUIRED = frozenset(("science", "psf", "direct_image", "sourcecat", "segmap"))


@dataclass(frozen=True)
class Needed:
    """A file that an association needs.

    Attributes
    ----------
    name : str
        Name of the file.
    role : str
        What it is needed as.
    required : bool
        Without it nothing can be made; without an optional one (a background, an imprint, a target acquisition) the
        product is of lower quality.
    stage : str
        The stage that makes it. ``stage2`` is image2 or spec2: a time series does not tell which by its names.
    """

    name: str
    role: str
    required: bool
    stage: str


def watch_list(association: Association) -> tuple[Needed, ...]:
    """The files of an association, each once for each role, required ones first."""
    needed = dict.fromkeys(
        Needed(member.expname, member.exptype, member.exptype in _REQUIRED, _stage(member, association))
        for member in association.members
    )
    return tuple(sorted(needed, key=lambda file: not file.required))


def _stage(member: Member, association: Association) -> str:
    stage = _STAGE_OF_SUFFIX.get(member.expname.rpartition(".")[0].rpartition("_")[2], "unknown")
    if stage != "stage2":
        return stage
    return "image2" if member.exptype == "target_acquisition" else _STAGE2.get(association.asn_type, "stage2")
