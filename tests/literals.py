"""What a page made from results may say in so many words."""

import ast
import re

import nbformat

NUMBER = re.compile(r"\d+\.\d+|\d+\s?%")


def assert_no_literal_results(notebook, floats, percentages=()):
    """Prose and printed strings hold no decimals and no percentages but the given ones; code outside of figures
    holds no floats but the given ones."""
    found = set()
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "markdown":
            assert not NUMBER.search(cell.source), cell.source
            continue
        nodes = list(ast.walk(ast.parse(cell.source)))
        formats = {
            id(part)
            for node in nodes
            if isinstance(node, ast.FormattedValue) and node.format_spec
            for part in ast.walk(node.format_spec)
        }
        constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in formats]
        for text in (node.value for node in constants if isinstance(node.value, str)):
            numbers = [hit for hit in NUMBER.findall(text) if hit.replace("\u00a0", " ") not in percentages]
            assert not numbers or re.fullmatch(r"[0-9.]+", text), text  # a lone number is a colour of matplotlib
        if "show_figure" not in cell.source:
            found |= {node.value for node in constants if isinstance(node.value, float)}
    assert found <= set(floats), found
