"""`plaudit env`: versions, cores, memory and devices, to paste into a bug report."""

from __future__ import annotations

from plaudit.cli.words import Parser
from plaudit.records.system import system_facts


def main(argv: list[str]) -> int:
    """Prints one fact a line."""
    Parser("plaudit env", description=__doc__).parse_args(argv)
    facts = system_facts()
    packages = facts.pop("packages")
    facts["memory_gib"] = f"{facts['memory_gib']} GiB"
    facts["devices"] = ", ".join(facts["devices"]) or "no accelerator"
    labels = {"memory_gib": "memory", "threads_set": "OMP_NUM_THREADS"}
    for name in ("command", "time"):
        del facts[name]
    for name, value in facts.items():
        print(f"{labels.get(name, name):18}{'not set' if value is None else value}")
    for name, version in packages.items():
        print(f"{name:18}{version or 'not installed'}")
    return 0
