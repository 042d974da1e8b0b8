"""`plaudit explain`: what a logged number means, its formula, and what is healthy."""

from __future__ import annotations

from plaudit.cli.words import Parser

WAYS = {"up": "should rise", "down": "should fall", "watch": "to be watched, neither up nor down"}


def main(argv: list[str]) -> int:
    """Prints the entry of METRIC, or the names of all."""
    parser = Parser("plaudit explain", description=__doc__)
    parser.add_argument("metric", nargs="?", help="name of a metric, such as objective/kl")
    name = parser.parse_args(argv).metric
    from plaudit.pipelines.glossary import GLOSSARY, find_metric

    if name is None:
        for known, metric in GLOSSARY.items():
            print(f"{known:28}{metric.sentence}")
        return 0
    known, metric = find_metric(name)
    print(f"{known}  ({WAYS[metric.direction]})")
    print(f"  {metric.sentence}")
    print(f"  formula: {metric.formula}")
    print(f"  healthy: {metric.healthy}")
    return 0
