"""The verb report."""

from argparse import Namespace


def report(args: Namespace) -> int:
    """Tell what runs and studies found, on one page or in slides; every number has a source."""
    from vitlab.report import report

    print(report(args.subjects, slides=args.slides, out=args.out))
    return 0
