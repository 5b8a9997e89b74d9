#!/usr/bin/env python3
"""The switches that say what holds a block: each against programs whose blocks it decides about."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403


def totals(truth, *options):
    status, answer, err = inspect_json("leaks", "-p", str(truth.pid), *options)
    if answer is None:
        diag(f"status {status}: {err}")
        return None
    return {kind: answer["totals"][kind]["blocks"] for kind in ("direct", "indirect", "possible")}


def with_program(check, program, *arguments):
    process, truth = start_truth(program, arguments)
    name = " ".join((program,) + arguments)
    if ok(truth, f"{name}: stands still"):
        is_(totals(truth), truth.expected, f"{name}: without options")
        check(name, truth)
    end(process)


def nothing_lost(*options):
    def check(name, truth):
        is_(totals(truth, *options), {"direct": 0, "indirect": 0, "possible": 0},
            f"{name}: {' '.join(options)}")
    return check


def interior(name, truth):
    is_(totals(truth, "--interior=reachable"), {**truth.expected, "possible": 0},
        f"{name}: --interior=reachable")
    is_(totals(truth, "--interior=possible"), truth.expected, f"{name}: --interior=possible")


def without_registers(name, truth):
    """Two stands of 13 chains of three; what registers held is lost, the head of each direct."""
    held = len(truth.of("held"))
    both = totals(truth, "--roots=-register,-vector")
    general = totals(truth, "--roots=-register")
    vector = totals(truth, "--roots=-vector")
    ok(both and both["direct"] * 3 <= held and both["indirect"] == 2 * both["direct"] and
       both["direct"] >= 2 * 11, f"{name}: --roots=-register,-vector")
    ok(general["direct"] == 2 * 9, f"{name}: --roots=-register, nine a thread")
    ok(vector["direct"] == both["direct"] - general["direct"], f"{name}: --roots=-vector")
    diag(f"{general} {vector} {both}")


def without_tls(name, truth):
    lost = totals(truth, "--roots=-tls")
    ok(lost["direct"] > truth.expected["direct"], f"{name}: --roots=-tls loses what it held")


def without_data(name, truth):
    """A kept list is one of the lost ones when data does not count."""
    lost = totals(truth, "--roots=-data")
    ok(lost["direct"] > truth.expected["direct"], f"{name}: --roots=-data loses what it held")


def main():
    need_tools()
    with_program(interior, "truth_interior")
    with_program(nothing_lost("--tag-mask=ff00000000000000"), "truth_disguised", "high")
    with_program(nothing_lost("--tag-mask=7"), "truth_disguised", "low")
    with_program(nothing_lost("--unaligned"), "truth_disguised", "unaligned")
    with_program(nothing_lost("--roots=+anon"), "truth_mapping")
    with_program(without_registers, "truth_registers")
    with_program(without_tls, "truth_tls")
    with_program(without_data, "truth_chain")
    done()


main()
