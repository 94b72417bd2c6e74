"""Check an installation: one line per check, and for each fault the command that mends it."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from . import system
from .findings import Finding, exit_code, summary
from .probes import answer, ask


def parse_args(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m mmstvit.doctor',
        description=__doc__,
        epilog='Exit code 1 if training could not start, else 0. Without a config, a data set that is not there and a '
        'library that is not installed are warnings.',
    )
    parser.add_argument('config', nargs='*', help='check what these configs need: library, data, pretrained weights')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='override settings of the configs, as in train.py')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument('--probe', metavar='REQUEST', help=argparse.SUPPRESS)  # how the doctor calls itself
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    args = parse_args(args)
    if args.probe is not None:
        answer(args.probe)
        return 0
    sys.stdout.reconfigure(errors='replace')  # an arrow must not be what fails on a terminal that has none
    facts = system.facts()
    findings = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not args.json:
            print(finding, flush=True)

    for finding in system.checks(None if args.config else Path('work_dirs')):
        report(finding)
    for finding in ask(args.config, args.cfg_options, facts):
        report(finding)
    code = exit_code(findings)
    if args.json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps(dict(environment=facts, checks=checks, exit_code=code), indent=2))
        return code
    print('\nenvironment')
    for name, value in facts.items():
        print(f'  {name}: {value}'.replace('\n', '\n    '))
    print(f'\n{summary(findings)}')
    return code


if __name__ == '__main__':
    sys.exit(main())
