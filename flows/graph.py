"""The graph of a program: from a folder of exposures, a pool or associations to nodes, each of which says what it needs.

There is a node per exposure (stage 1) and per association (stages 2 and 3). A node needs those whose products it reads,
and nothing else: there are no barriers between the stages.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from associations.association import Association, Member, Product, read_association
from associations.generator import generate
from associations.pool import make_pool, merge_pools, read_pool
from flows.spec2 import WFSS_TYPES
from flows.stage import IMAGE_TYPES
from infra.products.fits import header_from_start
from infra.products.glance import glance
from infra.products.header import Header, ProductError
from infra.products.names import base_of, suffix_of
from infra.sidecar import FOLDER
from infra.storage.store import (
    StorageError,
    exists,
    fetched,
    folder_of,
    is_local,
    join,
    listing,
    name_of,
    read_start,
    read_text,
    write_text,
)

log = logging.getLogger(__name__)

DARK_TYPES = frozenset("FGS_DARK MIR_DARKALL MIR_DARKIMG MIR_DARKMRS NRC_DARK NIS_DARK NRS_DARK".split())
GUIDER_TYPES = frozenset("FGS_ID-IMAGE FGS_ID-STACK FGS_ACQ1 FGS_ACQ2 FGS_TRACK FGS_FINEGUIDE".split())

READERS = 32  # remote files whose headers are read at the same time
START = 65536  # bytes that hold the headers of PRIMARY and SCI of an exposure, about twice over

#: Names and hashes of the associations that a run generated into its output.
GENERATED = f"{FOLDER}/associations"

#: Number of the first association of a slitless exposure alone, beyond those of the rules.
FIRST_ALONE = 90001

#: Suffix of what a stage 1 pipeline makes.
SUFFIX = {"detector1": "rate", "dark": "dark", "guider": "cal"}


@dataclass(frozen=True)
class Node:
    """One thing to make: an exposure through stage 1, or an association through its stage.

    Attributes
    ----------
    name : str
        Of the record; no two nodes have the same.
    stage, target : str
        Its flow, and the flow's input (a URL).
    needs : tuple of str
        Nodes that must be done before it starts.
    reads : mapping
        File name of each input -> the node that makes it; None where it must be there already.
    makes : tuple of str
        What the names of its products begin with.
    """

    name: str
    stage: str
    target: str
    needs: tuple[str, ...] = ()
    reads: Mapping[str, str | None] = field(default_factory=dict, hash=False)
    makes: tuple[str, ...] = ()


def stage_of(header: Header) -> str:
    """The stage 1 pipeline for an exposure; detector1 itself says so where it does not know the EXP_TYPE."""
    exp_type = header.get("EXP_TYPE")
    return "dark" if exp_type in DARK_TYPES else "guider" if exp_type in GUIDER_TYPES else "detector1"


def pipeline_of(association: Association) -> str:
    """The pipeline of an association type: ``tso-image2`` goes through image2, ``nrslamp-spec2`` through spec2."""
    return association.asn_type.rsplit("-", 1)[-1] if association.asn_type.endswith("2") else association.asn_type


def pipelines_of(header: Header) -> tuple[str, ...]:
    """All the pipelines that a science exposure goes through, as far as they are built."""
    stage = stage_of(header)
    if stage != "detector1":
        return (stage,)
    if header.get("EXP_TYPE") in WFSS_TYPES:
        return (stage, "spec2", "spec3")
    return (stage, "image2", "image3") if header.get("EXP_TYPE") in IMAGE_TYPES else (stage,)


def find_exposures(inputs: Sequence[str]) -> tuple[dict[str, str], Mapping[str, list[str]], dict[str, Header]]:
    """The exposures that the inputs name (URL -> stage), the pools and associations, and the headers that can be read.

    An input is a folder (with its pool and associations, where it has them), a pool, an association or an exposure.

    Raises
    ------
    ProductError
        If there is nothing to calibrate.
    """
    urls: dict[str, None] = {}
    tables: dict[str, list[str]] = {"pool": [], "asn": []}
    for url in inputs:
        if url.endswith(".json"):
            tables["asn"].append(url)
        elif url.endswith(".csv"):
            tables["pool"].append(url)
        elif url.endswith((".fits", ".fits.gz")):
            urls[url] = None
        else:
            urls |= dict.fromkeys(listing(url, "**/*_uncal.fits*"))
            tables["pool"] += listing(url, "*_pool.csv")
            tables["asn"] += given_associations(url)
    # The exposures of a pool or association are beside it; the folders that were given are listed already.
    beside = dict.fromkeys(folder_of(url) for url in inputs if url.endswith((".csv", ".json")))
    for folder in beside:
        urls |= dict.fromkeys(listing(folder, "**/*_uncal.fits*"))
    if not urls and not tables["asn"]:
        raise ProductError(
            f"{' '.join(inputs)}: expected *_uncal.fits exposures, a pool (*_pool.csv) or associations (*_asn.json), but "
            "there are none; check the folder"
        )
    headers = read_headers(urls)
    return {url: stage_of(headers[url]) if url in headers else "detector1" for url in urls}, tables, headers


def read_headers(urls: Iterable[str]) -> dict[str, Header]:
    """The headers of the files that have one; the others are an error in the log."""
    urls = list(urls)

    def try_header(url: str) -> Header | None:
        try:
            return header_of_file(url)
        except (ProductError, StorageError) as error:
            log.error("%s", error)
            return None

    if all(map(is_local, urls)):
        found = list(map(try_header, urls))
    else:
        with ThreadPoolExecutor(READERS, thread_name_prefix="headers") as pool:
            found = list(pool.map(try_header, urls))
    return {url: header for url, header in zip(urls, found, strict=True) if header is not None}


def header_of_file(url: str) -> Header:
    """The header of a product; of a remote one only the start is fetched, where that tells it.

    Raises
    ------
    ProductError, StorageError
        If it cannot be read.
    """
    if not is_local(url):
        header = header_from_start(read_start(url, START))
        if header is not None:
            return header
    with fetched(url) as path:
        return glance(path)


def given_associations(folder: str) -> list[str]:
    """The associations in a folder that somebody gave: not those that a run generated there, as long as they are as it
    wrote them. Where exposures and products share a folder, the next run generates anew for all exposures.
    """
    mark = join(folder, GENERATED)
    generated = json.loads(read_text(mark)) if exists(mark) else {}
    return [
        url
        for url in listing(folder, "*_asn.json")
        if name_of(url) not in generated or _hash(read_text(url)) != generated[name_of(url)]
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def gather(
    inputs: Sequence[str], output: str, write: bool = True, own_catalog: bool = False
) -> tuple[dict[str, str], dict[str, Association], dict[str, Header]]:
    """What a run is about: exposures with their stage, associations, and the headers of the exposures that have one.

    Where no association is given they are generated, from the pool or from the headers; with ``write`` they are written
    into ``output``, where the stage flows read them. With a catalog of the user's own, slitless exposures without a direct
    image have one, too.
    """
    exposures, tables, headers = find_exposures(inputs)
    associations = {url: read_association(read_text(url), name_of(url)) for url in tables["asn"]}
    if not associations:
        if tables["pool"]:
            pool = merge_pools([read_pool(read_text(url), name_of(url)) for url in tables["pool"]])
        else:
            pool = make_pool({name_of(url): header for url, header in headers.items()})
        generated = list(generate(pool))
        if own_catalog:
            generated += associate_alone(headers.values(), generated)
        for association in generated:
            url = join(output, association.file_name)
            associations[url] = association
        if write:
            for url, association in associations.items():
                write_text(url, association.to_json())
            mark = {name_of(url): _hash(association.to_json()) for url, association in associations.items()}
            write_text(join(output, GENERATED), json.dumps(mark, indent=1))
    return exposures, associations, headers


def associate_alone(headers: Iterable[Header], associations: Iterable[Association]) -> list[Association]:
    """An association for each slitless exposure that none of stage 2 has: the rules want a direct image with it."""
    calibrated = {
        member.expname
        for association in associations
        if association.level == 2
        for product in association.products
        for member in product.of_role("science")
    }
    made: list[Association] = []
    for header in headers:
        base = base_of(str(header.get("FILENAME", "")))
        member = Member(f"{base}_{SUFFIX['detector1']}.fits", "science")
        if header.get("EXP_TYPE") in WFSS_TYPES and base and member.expname not in calibrated:
            candidate = f"o{header.get('OBSERVTN', '001')}"
            name = f"jw{header.get('PROGRAM', '00000')}-{candidate}_spec2_{FIRST_ALONE + len(made)}_asn.json"
            made.append(Association("spec2", (Product(base, (member,)),), name, asn_id=candidate))
    return made


def expand(exposures: Mapping[str, str], associations: Mapping[str, Association]) -> tuple[Node, ...]:
    """The nodes of a program, each after those that it needs where the stages come in their order.

    Parameters
    ----------
    exposures : mapping
        URL of an ``_uncal`` exposure -> its stage.
    associations : mapping
        URL of an association file -> its content.

    Notes
    -----
    A file that no node makes is no dependency: it must be there when the node starts. Two associations that make one
    product would write one file twice, so the second is left out (a candidate that repeats an observation).
    """
    raw: dict[str, str] = {}
    nodes = []
    for url, stage in sorted(exposures.items()):
        base = base_of(url)
        if base in raw:
            log.warning("%s: there is another exposure of that name; left out", url)
            continue
        raw[base] = f"{base}_{SUFFIX[stage]}"
        nodes.append(Node(raw[base], stage, url, reads={name_of(url): None}, makes=(base,)))
    made: dict[str, str] = {}
    kept: list[tuple[str, str, Association]] = []
    for url, association in sorted(associations.items()):
        name = name_of(url).removesuffix("_asn.json")
        products = [product.name for product in association.products]
        twice = [product for product in products if product in made]
        if twice:
            log.warning("%s makes %s, which %s makes already; left out", name, twice[0], made[twice[0]])
            continue
        made.update(dict.fromkeys(products, name))
        kept.append((name, url, association))
    for name, url, association in kept:
        reads: dict[str, str | None] = {}
        for member in dict.fromkeys(member.expname for member in association.members):
            maker = (raw if suffix_of(member) in ("rate", "rateints") else made).get(base_of(member))
            reads[member] = maker if maker != name else None
        needs = tuple(dict.fromkeys(maker for maker in reads.values() if maker is not None))
        makes = tuple(product.name for product in association.products)
        nodes.append(Node(name, pipeline_of(association), url, needs, reads, makes))
    return tuple(nodes)
