"""The verb report."""

from argparse import Namespace


def report(args: Namespace) -> int:
    """Report runs and studies as one page or as slides; every number names its source."""
    from vitlab.report import report

    print(report(args.subjects, slides=args.slides, out=args.out))
    return 0
