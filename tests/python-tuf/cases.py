"""Runs the cases: our client against repositories by python-tuf, then python-tuf's client against ours."""

import sys
import traceback
from time import monotonic

import client_cases
import published_cases
from world import Server


def main(words):
    server = Server()
    begun, passed, failed = monotonic(), 0, []
    for name, run in [*client_cases.cases(server), *published_cases.cases()]:
        if words and not any(word in name for word in words):
            continue
        try:
            run()
        except Exception:  # whatever it is, the other cases still run
            failed.append(name)
            print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"PASS {name}", flush=True)
    print(f"{passed} of {passed + len(failed)} cases passed in {monotonic() - begun:.0f} s", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
