"""Scopes: the sets of exposures that a rule is evaluated over, and never mixes.

A candidate is a set of observations that the planning system wants to be looked at together: ``o001`` is an observation,
``c1001`` several of them (for a mosaic, with their background ...). ``a3001`` is the whole pool, for associations that
nobody planned.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from associations.exposure import Exposure
from associations.pool import candidates_of

log = logging.getLogger(__name__)

#: Identifier and type of the scope that is the whole pool.
DISCOVERED = ("a3001", "discovered")


@dataclass(frozen=True)
class Scope:
    """The exposures of one program that a rule may put together."""

    id: str
    kind: str
    exposures: tuple[Exposure, ...]

    @property
    def is_discovered(self) -> bool:
        """Whether it is the whole pool."""
        return self.kind == DISCOVERED[1]


def find_scopes(
    exposures: Sequence[Exposure],
    ids: Iterable[str] | None = None,
    *,
    candidates: bool = True,
    discovered: bool = True,
    with_backgrounds: bool = False,
) -> list[Scope]:
    """The scopes of a pool.

    Parameters
    ----------
    exposures : sequence
        The rows of the pool.
    ids : iterable of str
        Only these candidates.
    candidates, discovered : bool
        Whether candidates, and the whole pool, are scopes.
    with_backgrounds : bool
        Beside the candidates ``ids``, also those of type background that share an exposure with one of them.
    """
    found: dict[tuple[str, str], list[Exposure]] = {}
    for exposure in exposures:
        for candidate in candidates_of(exposure["asn_candidate"]):
            found.setdefault(candidate, []).append(exposure)
    if ids is not None:
        wanted = {ident.lower() for ident in ids}
        known = {ident for ident, _ in found}
        for ident in sorted(wanted - known):
            log.warning("candidate %s is not in the pool; it has %s", ident, ", ".join(sorted(known)[:10]) or "none")
        if with_backgrounds:
            wanted |= {
                ident
                for exposure in exposures
                for ident, kind in _if_named(candidates_of(exposure["asn_candidate"]), wanted)
                if kind == "background"
            }
        found = {candidate: members for candidate, members in found.items() if candidate[0] in wanted}
    scopes = [Scope(*candidate, tuple(members)) for candidate, members in sorted(found.items())] if candidates else []
    if discovered:
        scopes.append(Scope(*DISCOVERED, tuple(exposures)))
    return scopes


def _if_named(listed: Sequence[tuple[str, str]], wanted: set[str]) -> Sequence[tuple[str, str]]:
    return listed if any(ident in wanted for ident, _ in listed) else ()
