"""The dashboard in a real Chromium, before a real prestage-fleet with 10,000 nodes. One line for each case, and a count.

    tests/dashboard/run [WORD...]    only the cases whose names contain one of the words

Pictures of every page go to the folder that SCREENSHOTS names (target/dashboard otherwise), to be looked at by a person.
"""

import os
import sys
import time
import traceback

import doing  # noqa: F401 its cases enter themselves in the list
import looking  # noqa: F401
from chromium import Chromium, Failed
from helpers import CASES, NOTES, SCREENSHOTS
from world import World


def main():
    wanted = sys.argv[1:]
    chosen = [one for one in CASES if not wanted or any(word in one.__name__ for word in wanted)]
    os.makedirs(SCREENSHOTS, exist_ok=True)
    failed = 0
    began = time.monotonic()
    with World(int(os.environ.get("NODES", "10000"))) as world:
        print(f"{world.count} nodes enrolled and reported in {time.monotonic() - began:.0f} s", flush=True)
        with Chromium() as browser:
            for one in chosen:
                name, start = one.__name__.replace("_", " "), time.monotonic()
                try:
                    one(browser, world)
                    print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
                except Exception as error:  # noqa: BLE001 whatever it is, the others run
                    failed += 1
                    print(
                        f"FAILED  {name}: {error if isinstance(error, Failed) else traceback.format_exc()}",
                        flush=True,
                    )
                for text in NOTES:
                    print(f"          {text}", flush=True)
                NOTES.clear()
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
