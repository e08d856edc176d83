"""A table as HTML, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class ReportTable:
    """Cells of plain text.

    Attributes:
        header: the columns' titles.
        rows: the cells, row by row.
        text_columns: the numbers of the columns that are words, aligned to the left.
        highlighted: the numbers of the rows to set off.
        anchors: an HTML id for each row, for links; none by default.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = frozenset({0})
    highlighted: frozenset[int] = frozenset()
    anchors: Sequence[str] = field(default_factory=tuple)

    def html(self) -> str:
        """The table as an HTML element."""
        head = "".join(self._html_cell("th", column, title) for column, title in enumerate(self.header))
        body = []
        for number, row in enumerate(self.rows):
            attributes = f' id="{escape(self.anchors[number])}"' if self.anchors else ""
            attributes += ' class="own"' if number in self.highlighted else ""
            cells = "".join(self._html_cell("td", column, cell) for column, cell in enumerate(row))
            body.append(f"<tr{attributes}>{cells}</tr>")
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def markdown(self) -> str:
        """The table in Markdown (pipes)."""
        rule = [":---" if column in self.text_columns else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def latex(self) -> str:
        """The table in LaTeX (packages booktabs and textcomp)."""
        columns = "".join("l" if column in self.text_columns else "r" for column in range(len(self.header)))
        lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _latex_row(self.header), "\\midrule"]
        lines += [_latex_row(row) for row in self.rows]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def _html_cell(self, tag: str, column: int, text: str) -> str:
        kind = ' class="text"' if column in self.text_columns else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"


_LATEX_SPECIAL = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$"}
)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX_SPECIAL) for cell in cells) + " \\\\"
