"""Writes what the installed stanli refuses of the bank into `refusals.json`: python tests/conformance/list_refusals.py.

Prints the cases that are wrong, which no table excuses.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from conformance.bank import BANK, REFUSALS, SLOW_BANK, outcomes
from conformance.places import PLACES

version = importlib.metadata.version("stanli")
rows: dict[str, list[str]] = {}
wrong: dict[str, list[str]] = {}
for cases, places in (BANK | SLOW_BANK).values():
    bank = list(cases())
    for place in PLACES if len(places) > 2 else places:
        for outcome in outcomes(bank, place, set()):
            if outcome.kind == "wrong":
                wrong.setdefault(f"{outcome.case.name}: {outcome.detail}", []).append(place)
            if outcome.kind == "refused":
                rows.setdefault(outcome.case.name, []).append(place)
known = json.loads(REFUSALS.read_text()) if REFUSALS.exists() else {}
known[f"stanli {version}"] = dict(sorted(rows.items()))
text = ",\n".join(
    f"  {json.dumps(engine)}: {{\n"
    + ",\n".join(f"    {json.dumps(name)}: {json.dumps(places)}" for name, places in table.items())
    + "\n  }"
    for engine, table in known.items()
)
REFUSALS.write_text(f"{{\n{text}\n}}\n")
for name, places in wrong.items():
    print(f"wrong in {', '.join(places)}: {name}")
