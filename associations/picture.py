"""A picture of a program: exposures on the left, products of stage 2 and stage 3 on the right, a line for each member."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from associations.association import Association
from associations.naming import level2_product

#: Colour of a role; those that are not here are grey.
COLOURS = {
    "science": "#1f6fb4",
    "background": "#c98a00",
    "imprint": "#8c564b",
    "psf": "#7b4fb5",
    "target_acquisition": "#6b8e23",
    "direct_image": "#c0392b",
    "sourcecat": "#c0392b",
    "segmap": "#c0392b",
}
_HEADINGS = ("exposures", "stage 2", "stage 3")


def draw_program(associations: Sequence[Association]) -> Any:
    """A matplotlib figure of the products and members of some associations."""
    from matplotlib.figure import Figure

    levels = {product.name: asn.level for asn in associations for product in asn.products}
    lines: dict[tuple[tuple[int, str], tuple[int, str], str], None] = {}
    columns: tuple[dict[str, None], ...] = ({}, {}, {})
    for association in associations:
        for product in association.products:
            end = (association.level - 1, product.name)
            columns[end[0]][product.name] = None
            for member in product.members:
                base = level2_product(PurePosixPath(member.expname).name)
                root = base.rpartition("_")[0] if base.endswith(("_cat", "_segm")) else base
                made_by = levels.get(root)
                column = made_by - 1 if made_by is not None and made_by != association.level else 0
                column = 2 if root != base or member.exptype == "direct_image" else column
                columns[column][root] = None
                lines[(column, root), end, member.exptype] = None
    tallest = max(map(len, columns))
    figure = Figure(figsize=(15, min(max(2.5, 0.22 * tallest + 1.2), 120)), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-0.45, 2.45)
    axes.set_ylim(-1.5, tallest)
    places = {
        (column, name): (column, tallest - 1 - (i + 0.5) * tallest / len(names))
        for column, names in enumerate(columns)
        for i, name in enumerate(sorted(names))
    }
    for (start, stop, role), _ in lines.items():
        (x0, y0), (x1, y1) = places[start], places[stop]
        axes.plot([x0, x1], [y0, y1], color=COLOURS.get(role, "0.6"), linewidth=0.8, alpha=0.7, zorder=1)
    size = 7 if tallest < 60 else 5
    for (column, name), (x, y) in places.items():
        axes.text(
            x, y, name, ha=("right", "center", "left")[column], va="center", fontsize=size, zorder=2,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "0.7", "linewidth": 0.5},
        )  # fmt: skip
    for column, heading in enumerate(_HEADINGS):
        axes.text(column, tallest - 0.3, heading, ha=("right", "center", "left")[column], va="bottom", weight="bold")
    roles = dict.fromkeys(role for _, _, role in lines)
    for i, role in enumerate(roles):
        axes.text(-0.4 + 0.35 * i, -1.3, role, color=COLOURS.get(role, "0.6"), fontsize=8, weight="bold")
    return figure
