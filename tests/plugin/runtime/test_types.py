"""Types that annotations share are named in one place."""

import re
from pathlib import Path

import avistan
from avistan.runtime import types

NAMES = [name for name in vars(types) if name[0].isupper()]


def test_no_other_module_defines_a_shared_type():
    package = Path(avistan.__file__).parent
    defined = re.compile(rf"^({'|'.join(NAMES)})(: TypeAlias)? = ", re.MULTILINE)
    assert [
        path.name
        for path in sorted(package.rglob("*.py"))
        if path != Path(types.__file__) and defined.search(path.read_text())
    ] == []
