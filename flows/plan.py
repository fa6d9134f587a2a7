"""The plan of a run: which products are current, which would be made and why, and what that will cost.

A node is current when its record (``infra.sidecar``) tells of the recipe that it has now, and its products are on the
disk as they were recorded. The recipe holds everything that the products follow from:

``inputs``       name -> SHA-256 of the content, or ``node:<fingerprint>`` where another node makes it
``settings``     product -> options of its steps (as they are after parameter references and overrides) and reference files
``association``  SHA-256 of the association's content
``left_out``     members without which it is made
``code``         digest of the sources behind the stage, versions of the numeric packages

So what a node makes of equal inputs is equal, wherever and whenever it ran: deleting a product makes that one anew and
nothing after it, a touched file changes nothing, and a changed reference file changes what read it and all that follows.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from associations.association import Association
from flows.dark import dark_steps
from flows.detector1 import all_steps
from flows.graph import Node
from flows.guider import STEPS as GUIDER_STEPS
from flows.image2 import ALL_STEPS as IMAGE2_STEPS
from flows.image3 import ALL_STEPS as IMAGE3_STEPS
from flows.spec2 import ALL_STEPS as SPEC2_STEPS
from flows.spec3 import ALL_STEPS as SPEC3_STEPS
from flows.stage import Overrides, choose_options, parameter_reftypes, running_reftypes, runs
from infra.errors import one_line
from infra.products.fits import read_header
from infra.products.header import Header, ProductError
from infra.products.names import base_of, suffix_of
from infra.provenance import code_of
from infra.references.client import context_name
from infra.references.fetch import fetch_references, locate, sha1_of
from infra.references.select import choose_references, crds_parameters, selection_key
from infra.sidecar import File, Record, fingerprint_of, read_record, read_records, record_name, sha256_of
from infra.storage.store import (
    Stat,
    StorageError,
    fetched,
    folder_of,
    is_local,
    join,
    name_of,
    stat_file,
    stat_folder,
)
from tasks.background import background
from tasks.step import PIPELINES

log = logging.getLogger(__name__)

#: Steps of each pipeline, for an exposure and the roles that the members of its association play.
PIPELINE_STEPS: Mapping[str, Callable[[Header, Set[str]], tuple]] = {
    "detector1": lambda header, roles: all_steps(header),
    "dark": lambda header, roles: dark_steps(header),
    "guider": lambda header, roles: GUIDER_STEPS,
    "image2": lambda header, roles: (background, *IMAGE2_STEPS) if "background" in roles else IMAGE2_STEPS,
    "image3": lambda header, roles: IMAGE3_STEPS,
    "spec2": lambda header, roles: SPEC2_STEPS,
    "spec3": lambda header, roles: SPEC3_STEPS,
}

#: States of a node whose products are there.
THERE = ("done", "current")

#: What to do without a member of a stage 3 product that failed.
MissingMembers = Literal["wait", "leave-out"]

#: Suffixes of what stage 1 makes.
FIRST_SUFFIXES = frozenset("rate rateints ramp dark".split())

#: What an upstream node's part in ``inputs`` begins with.
MADE = "node:"


@dataclass(frozen=True)
class Reason:
    """Why a node would run: ``kind`` in a word or two, and what exactly."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


@dataclass(frozen=True)
class Verdict:
    """What the plan says of a node.

    ``fingerprint`` is None where it will be known only when the inputs are read or made. ``touched`` is the record
    with the versions that the files have now, where they were touched and hold what they held.
    """

    node: Node
    reasons: tuple[Reason, ...]
    recipe: Mapping[str, Any] | None
    fingerprint: str | None
    error: str | None = None
    touched: Record | None = None

    @property
    def current(self) -> bool:
        """Whether there is nothing to do."""
        return not self.reasons


@dataclass
class Memory:
    """What a survey has looked up so far: grows, and changes no answer."""

    headers: dict[str, Header | None] = field(default_factory=dict)
    settings: dict[Any, Any] = field(default_factory=dict)
    parts: dict[Any, Any] = field(default_factory=dict)
    stats: dict[str, Stat | None] = field(default_factory=dict)
    folders: dict[str, Mapping[str, Stat]] = field(default_factory=dict)
    sha256: dict[tuple[str, int, str], str] = field(default_factory=dict)
    sha1: dict[tuple[str, int, str], str] = field(default_factory=dict)
    reference_stats: dict[str, Stat | None] = field(default_factory=dict)
    sha1_by_name: dict[str, str] = field(default_factory=dict)
    associations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """All that a plan looks at: the graph, what the output holds, and what the run was asked for.

    Attributes
    ----------
    nodes : dict
        Name -> node; nodes may be added.
    associations, headers : dict
        By URL.
    records, files : dict
        Node -> record, and file name -> size and version, of the output when the survey was made.
    context : str
        Of the reference files.
    fetch : bool
        Whether reference files that are not here may be fetched.
    verify : bool
        Whether products are read and compared with their recorded content, not only by size and version.
    """

    nodes: dict[str, Node]
    associations: dict[str, Association]
    headers: dict[str, Header]
    output: str
    overrides: Overrides
    records: dict[str, Record]
    files: dict[str, Stat]
    context: str
    fetch: bool = False
    verify: bool = False
    memory: Memory = field(default_factory=Memory)


def survey(
    nodes: Iterable[Node],
    associations: Mapping[str, Association],
    headers: Mapping[str, Header],
    output: str,
    overrides: Overrides,
    *,
    fetch: bool = False,
    verify: bool = False,
) -> Survey:
    """Look at the output folder, once, for the plan of these nodes."""
    files = stat_folder(output)
    records = read_records(output, files)
    memory = Memory(headers=dict(headers))
    for record in records.values():
        for name, file in (*record.inputs.items(), *record.products.items()):
            memory.sha256[name, file.size, file.version] = file.sha256
        for name, (sha1, size, version) in record.references.items():
            memory.sha1[name, size, version] = sha1
            memory.sha1_by_name[name] = sha1
    return Survey(
        nodes={node.name: node for node in nodes},
        associations=dict(associations),
        headers=dict(headers),
        output=output,
        overrides=overrides,
        records=records,
        files=files,
        context=context_name(),
        fetch=fetch,
        verify=verify,
        memory=memory,
    )


def plan(scene: Survey) -> dict[str, Verdict]:
    """The verdict of every node, as if those upstream of it that would run ended well."""
    verdicts: dict[str, Verdict] = {}
    states: dict[str, str] = {}
    for node in in_order(scene.nodes.values()):
        fingerprints = {name: verdicts[name].fingerprint for name in node.needs if name in verdicts}
        left_out = members_to_leave_out(scene, node, states, "wait")
        if left_out is None:
            verdicts[node.name], states[node.name] = Verdict(node, (), None, None), "empty"
            continue
        verdict = judge(scene, node, fingerprints, left_out)
        remade = [name for name in node.needs if name in verdicts and not verdicts[name].current]
        verdicts[node.name] = _name_upstream(verdict, remade)
        states[node.name] = scene.records[node.name].state if verdict.current else "done"
    return verdicts


def members_to_leave_out(
    scene: Survey, node: Node, states: Mapping[str, str], missing_members: MissingMembers
) -> frozenset[str] | None:
    """The members that a node is made without, or None where it cannot be made without them.

    Only science members of a stage 3 product can be left out, and one must remain: those that hold nothing always, those
    that failed where the run says so.
    """
    stopped = {name: states[name] for name in node.needs if states.get(name, "done") not in THERE}
    if not stopped:
        return frozenset()
    association = scene.associations.get(node.target)
    if association is None or association.level != 3:
        return None
    if missing_members == "wait" and any(state != "empty" for state in stopped.values()):
        return None
    absent = frozenset(name for name, maker in node.reads.items() if maker in stopped)
    if any(member.exptype != "science" for member in association.members if member.expname in absent):
        return None
    for product in association.products:
        if all(member.expname in absent for member in product.of_role("science")):
            return None
    return absent


def _name_upstream(verdict: Verdict, remade: Sequence[str]) -> Verdict:
    reasons = [reason for reason in verdict.reasons if reason.kind != "upstream remade"]
    if len(reasons) == len(verdict.reasons):
        return verdict
    return replace(verdict, reasons=(*reasons, Reason("upstream remade", ", ".join(remade))))


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """The nodes, each after all that it needs.

    Raises
    ------
    ProductError
        If nodes wait for each other in a circle.
    """
    by_name = {node.name: node for node in nodes}
    graph = {name: [need for need in node.needs if need in by_name] for name, node in by_name.items()}
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ProductError(f"associations wait for each other in a circle: {circle}; correct their members") from None


def judge(
    scene: Survey, node: Node, fingerprints: Mapping[str, str | None], left_out: frozenset[str] = frozenset()
) -> Verdict:
    """Whether a node is current, given the fingerprints of those that it needs, and made without some members.

    Never raises for what is wrong with one exposure or association: that is the verdict's ``error``, and the reason.
    """
    record = scene.records.get(node.name)
    try:
        recipe = recipe_of(scene, node, fingerprints, left_out, record)
    except Exception as error:
        if not one_line(error)[0]:
            raise
        line = one_line(error)[1]
        return Verdict(node, (Reason("new" if record is None else "cannot be planned", line),), None, None, line)
    known = all(value is not None for value in recipe["inputs"].values()) and not _unknown_references(recipe)
    fingerprint = fingerprint_of(recipe) if known else None
    if record is None:
        return Verdict(node, (Reason("new"),), recipe, fingerprint)
    if fingerprint == record.fingerprint:
        reasons, products = compare_products(scene, record)
    else:
        reasons, products = tuple(differences(record.recipe, recipe)), record.products
    touched = None
    if not reasons:
        inputs = {name: _as_now(scene, node, name, file) for name, file in record.inputs.items()}
        if inputs != record.inputs or products != record.products:
            touched = replace(record, inputs=inputs, products=products)
    return Verdict(node, reasons, recipe, fingerprint, touched=touched)


def recipe_of(
    scene: Survey, node: Node, fingerprints: Mapping[str, str | None], left_out: frozenset[str], record: Record | None
) -> dict[str, Any]:
    """Everything that the products of a node follow from; None for the content of a file that was not read yet."""
    inputs: dict[str, str | None] = {}
    for name, maker in node.reads.items():
        if name in left_out:
            continue
        if maker is not None:
            fingerprint = fingerprints.get(maker)
            inputs[name] = None if fingerprint is None else MADE + fingerprint
        else:
            # What was never read is not read for a plan: that node is new in any case.
            inputs[name] = content_of(scene, node, name, read=record is not None)
    recipe: dict[str, Any] = {
        "stage": node.stage,
        "inputs": inputs,
        "settings": settings_of(scene, node, left_out),
        "code": dict(code_of(f"flows.{node.stage}")),
    }
    association = scene.associations.get(node.target)
    if association is not None:
        recipe["association"] = _association_hash(scene, node.target, association)
    if left_out:
        recipe["left_out"] = sorted(left_out)
    return recipe


def _association_hash(scene: Survey, url: str, association: Association) -> str:
    known = scene.memory.associations
    if url not in known:
        known[url] = hashlib.sha256(f"{association.file_name}\n{association.to_json()}".encode()).hexdigest()
    return known[url]


def _unknown_references(recipe: Mapping[str, Any]) -> bool:
    return any(None in named for part in recipe["settings"].values() for named in part["references"].values())


def place_of(scene: Survey, node: Node, name: str) -> str:
    """Where an input of a node is: in the output folder, else beside the association (or, of stage 1, the exposure)."""
    if name == name_of(node.target):
        return node.target
    return join(scene.output, name) if name in scene.files else join(folder_of(node.target), name)


def stat_of(scene: Survey, url: str) -> Stat | None:
    """Size and version of a file, None where it is not there; looked up once."""
    memory = scene.memory
    if url not in memory.stats:
        folder = folder_of(url)
        if is_local(url):
            memory.stats[url] = stat_file(url)
        else:
            if folder not in memory.folders:
                memory.folders[folder] = stat_folder(folder)
            memory.stats[url] = memory.folders[folder].get(name_of(url))
    return memory.stats[url]


def content_of(scene: Survey, node: Node, name: str, read: bool) -> str | None:
    """The SHA-256 of an input that no node makes; where it is not known, the file is read, or None with ``read`` off."""
    url = place_of(scene, node, name)
    stat = stat_of(scene, url)
    if stat is None:
        return None
    key = (name, stat.size, stat.version)
    if key not in scene.memory.sha256 and read:
        with fetched(url) as path:
            scene.memory.sha256[key] = sha256_of(path)
    return scene.memory.sha256.get(key)


def _as_now(scene: Survey, node: Node, name: str, file: File) -> File:
    stat = stat_of(scene, place_of(scene, node, name))
    return file if stat is None else File(stat.size, stat.version, file.sha256)


def header_of(scene: Survey, node: Node, names: Iterable[str]) -> Header:
    """The header that chooses references and options: of the first of these inputs that has one, followed to its exposure.

    Raises
    ------
    ProductError
        If none of them can be read.
    """
    for name in names:
        maker = scene.nodes.get(node.reads.get(name) or "")
        if maker is not None:
            try:
                return header_of(scene, maker, maker.reads)
            except (ProductError, StorageError):
                continue
        url = place_of(scene, node, name)
        if url not in scene.memory.headers:
            scene.memory.headers[url] = _try_header(url)
        header = scene.memory.headers[url]
        if header is not None:
            return header
    raise ProductError(f"{node.name}: no input of it can be read: {', '.join(names) or 'it has none'}; put it right")


def _try_header(url: str) -> Header | None:
    try:
        with fetched(url) as path:
            return read_header(path)
    except (ProductError, StorageError) as error:
        log.debug("%s", error)
        return None


def settings_of(scene: Survey, node: Node, left_out: frozenset[str]) -> dict[str, Any]:
    """Product -> the options of its steps and the reference files that they read."""
    association = scene.associations.get(node.target)
    if association is None:
        names = [name for name in node.reads if name not in left_out]
        return {
            base_of(names[0] if names else node.name): _settings(
                scene, node.stage, header_of(scene, node, names), frozenset()
            )
        }
    found = {}
    for product in association.products:
        science = [m.expname for m in product.members if m.exptype == "science" and m.expname not in left_out]
        roles = frozenset(member.exptype for member in product.members)
        found[product.name] = _settings(scene, node.stage, header_of(scene, node, science), roles)
    return found


def _settings(scene: Survey, stage: str, header: Header, roles: frozenset[str]) -> Mapping[str, Any]:
    if stage not in PIPELINE_STEPS:
        raise ProductError(
            f"the pipeline {stage} is not built yet; built are {', '.join(PIPELINE_STEPS)}. Calibrate this association with "
            "the official package meanwhile"
        )
    memory = scene.memory
    steps = PIPELINE_STEPS[stage](header, roles)
    names = tuple(step.name for step in steps)
    key: Any = (stage, names, selection_key(header, parameter_reftypes(names, stage), scene.context))
    if key not in memory.parts:
        memory.parts[key] = choose_options(header, steps, scene.overrides, stage)
    options = memory.parts[key]
    reftypes = running_reftypes(header, steps, options)
    key = (key, selection_key(header, reftypes, scene.context))
    if key not in memory.settings:
        chosen = choose_references(header, reftypes, scene.context)
        if scene.fetch:
            wanted = [name for name in chosen.values() if name is not None and name not in memory.sha1_by_name]
            fetch_references(wanted, scene.context, crds_parameters(header))
        resolved: dict[str, Any] = {}
        for name in names:
            resolved[name] = options.of(name).values.model_dump(mode="json") if runs(name, options) else "skip"
        if stage in PIPELINES:
            resolved[stage] = options.of(stage).values.model_dump(mode="json")
        references = {
            reftype: [] if name is None else [name, _sha1(scene, name, header)] for reftype, name in chosen.items()
        }
        memory.settings[key] = {"options": resolved, "references": references}
        files = _named_files(resolved)
        if files:
            memory.settings[key]["files"] = files
    return memory.settings[key]


def _named_files(options: Mapping[str, Any]) -> dict[str, str]:
    """The files that options name, such as a mask of the user's: name of the option -> SHA-256 of what is in it."""
    found = {}
    for step, values in options.items():
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, str) and "." in value and stat_file(value) is not None:
                with fetched(value) as path:
                    found[f"{step}.{key}"] = sha256_of(path)
    return found


def _sha1(scene: Survey, name: str, header: Header) -> str | None:
    """SHA-1 of a reference file; one that is not on this machine has the content that it had: their names are unique."""
    memory = scene.memory
    path = locate(name, crds_parameters(header))
    if name not in memory.reference_stats:
        memory.reference_stats[name] = stat_file(str(path))
    stat = memory.reference_stats[name]
    if stat is None:
        return memory.sha1_by_name.get(name)
    key = (name, stat.size, stat.version)
    if key not in memory.sha1:
        memory.sha1[key] = sha1_of(path)
    return memory.sha1[key]


def compare_products(scene: Survey, record: Record) -> tuple[tuple[Reason, ...], Mapping[str, File]]:
    """What is wrong with the products of a record, and its files with the versions that they have now."""
    reasons = []
    products = dict(record.products)
    for name, file in record.products.items():
        stat = scene.files.get(name)
        if stat is None:
            reasons.append(Reason("missing", name))
        elif stat.size != file.size:
            reasons.append(Reason("changed on disk", f"{name} has {stat.size} bytes, and had {file.size}"))
        elif stat.version != file.version or scene.verify:
            with fetched(join(scene.output, name)) as path:
                same = sha256_of(path) == file.sha256
            if same:
                products[name] = File(stat.size, stat.version, file.sha256)
            else:
                reasons.append(Reason("changed on disk", name))
    reasons += [Reason("not removed", name) for name in record.retired if name in scene.files]
    return tuple(reasons), products


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Reason]:
    """What differs between two recipes, in words."""
    reasons: list[Reason] = []
    if before.get("association") != now.get("association"):
        added = sorted(set(now["inputs"]) - set(before["inputs"]))
        gone = sorted(set(before["inputs"]) - set(now["inputs"]) - set(now.get("left_out", ())))
        words = [f"+ {name}" for name in added] + [f"- {name}" for name in gone]
        reasons.append(Reason("association changed", ", ".join(words)))
    back = sorted(set(before.get("left_out", ())) - set(now.get("left_out", ())))
    out = sorted(set(now.get("left_out", ())) - set(before.get("left_out", ())))
    if back:
        reasons.append(Reason("member is back", ", ".join(back)))
    if out:
        reasons.append(Reason("member left out", ", ".join(out)))
    upstream = False
    for name in sorted(set(before["inputs"]) & set(now["inputs"])):
        one, other = before["inputs"][name], now["inputs"][name]
        if one != other:
            if (other or MADE).startswith(MADE):
                upstream = True
            else:
                reasons.append(Reason("input changed", name))
    reasons += _settings_differences(before["settings"], now["settings"])
    for what in sorted(set(before["code"]) | set(now["code"])):
        one, other = before["code"].get(what), now["code"].get(what)
        if one != other:
            text = f"of {now['stage']}" if what == "sources" else f"{what} {one} -> {other}"
            reasons.append(Reason("code changed", text))
    if upstream:
        reasons.append(Reason("upstream remade"))
    return reasons or [Reason("recipe changed")]


def _settings_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Reason]:
    found: dict[Reason, None] = {}
    for product in now:
        one, other = before.get(product), now[product]
        if one is None:
            found[Reason("product added", product)] = None
            continue
        for reftype in sorted(set(one["references"]) | set(other["references"])):
            was, is_ = one["references"].get(reftype), other["references"].get(reftype)
            if was != is_ and was is not None and is_ is not None:  # else a step was switched, which is said below
                same_name = was[:1] == is_[:1]
                text = f"{reftype}: content of {is_[0]}" if same_name else f"{reftype}: {_name(was)} -> {_name(is_)}"
                found[Reason("reference changed", text)] = None
        for option in sorted(set(one.get("files", {})) & set(other.get("files", {}))):
            if one["files"][option] != other["files"][option]:
                found[Reason("input changed", f"the file of {option}")] = None
        for step in sorted(set(one["options"]) | set(other["options"])):
            was, is_ = one["options"].get(step), other["options"].get(step)
            if was == is_:
                continue
            if not isinstance(was, Mapping) or not isinstance(is_, Mapping):
                found[Reason("option changed", f"{step} is {_on(was)}, and now {_on(is_)}")] = None
                continue
            for key in sorted(set(was) | set(is_)):
                if was.get(key) != is_.get(key):
                    found[Reason("option changed", f"{step}.{key} {was.get(key)} -> {is_.get(key)}")] = None
    return list(found)


def _name(reference: Sequence[str]) -> str:
    return reference[0] if reference else "none"


def _on(options: Any) -> str:
    return "absent" if options is None else "off" if options == "skip" else "on"


def orphans(scene: Survey) -> dict[str, tuple[str, ...]]:
    """Records whose node is no more, with those of their products that no other node makes and that are still there."""
    made = {name for node in scene.nodes if node in scene.records for name in scene.records[node].products}
    prefixes = {prefix for node in scene.nodes.values() for prefix in node.makes}
    found = {}
    for name, record in sorted(scene.records.items()):
        if name not in scene.nodes:
            found[name] = tuple(
                product
                for product in record.products
                if product in scene.files and product not in made and base_of(product) not in prefixes
            )
    return {name: products for name, products in found.items() if products}


def maker_of(scene: Survey, product: str) -> Node | None:
    """The node that makes a product: by the records, else by what the names of its products begin with."""
    if product in scene.nodes:
        return scene.nodes[product]
    for name, record in scene.records.items():
        if product in record.products and name in scene.nodes:
            return scene.nodes[name]
    first = suffix_of(product) in FIRST_SUFFIXES
    named = [node for node in scene.nodes.values() if base_of(product) in node.makes]
    fits = [node for node in named if (node.target not in scene.associations) == first]
    return next(iter(fits or named), None)


def references_of(scene: Survey, node: Node, recipe: Mapping[str, Any] | None) -> dict[str, tuple[str, int, str]]:
    """The reference files of a recipe as a record has them: name -> SHA-1, size and version in the cache."""
    found: dict[str, tuple[str, int, str]] = {}
    for part in (recipe or {}).get("settings", {}).values():
        for named in part["references"].values():
            if named and named[1] is not None and named[0] not in found:
                stat = scene.memory.reference_stats.get(named[0])
                if stat is not None:
                    found[named[0]] = (named[1], stat.size, stat.version)
    return found


def forget(scene: Survey, node: Node) -> None:
    """Look again at a node and at what it reads: it was made, or tried, since the survey."""
    for name, maker in node.reads.items():
        if maker is None:
            url = place_of(scene, node, name)
            scene.memory.stats.pop(url, None)
            scene.memory.headers.pop(url, None)
            scene.memory.folders.pop(folder_of(url), None)
    scene.memory.associations.pop(node.target, None)
    url = join(scene.output, record_name(node.name))
    record = read_record(url) if stat_file(url) is not None else None
    if record is None:
        scene.records.pop(node.name, None)
        return
    scene.records[node.name] = record
    for name in (*record.products, *record.retired):
        stat = stat_file(join(scene.output, name))
        if stat is None:
            scene.files.pop(name, None)
        else:
            scene.files[name] = stat
