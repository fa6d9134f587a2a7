"""All rules."""

from associations.rules import ami3, coron3, image2, image3, spec2, spec3, tso3, wfs
from associations.rules.rule import Level2Rule, Level3Rule

LEVEL2: tuple[Level2Rule, ...] = (*image2.RULES, *spec2.RULES)
LEVEL3: tuple[Level3Rule, ...] = (
    *image3.RULES,
    *spec3.RULES,
    *coron3.RULES,
    *ami3.RULES,
    *tso3.RULES,
    *wfs.RULES,
)
