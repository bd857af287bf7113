"""Verbs that use a model: predict, export."""

from argparse import Namespace

from vitlab.cli.printing import note, print_json, tracked
from vitlab.errors import ConfigError, VitlabError


def predict(args: Namespace) -> int:
    """Classify pictures, with calibrated probabilities."""
    from vitlab.answers import FORMATS, Tally, answers, find_pictures, split_source
    from vitlab.classifier import open_classifier

    if args.json and args.csv:
        raise ConfigError(["--json and --csv are two forms: choose one"])
    source, names = split_source(args.pictures)
    # By torch: for ONNX a run would have to be exported first.
    classifier = open_classifier(source, "torch", device=args.device)
    if args.explain and classifier.run is None:
        raise VitlabError(f"an export of {classifier.name} has no maps: give the run itself")
    if source is None:
        note(f"no run was named: the shipped model {classifier.name} answers")
    note(classifier.introduction, *classifier.notes)
    tally = Tally(note)
    paths = find_pictures(names)
    found = tally.counted(tracked(answers(classifier, paths, args.top), len(paths), "pictures"))
    form = "json" if args.json else "csv" if args.csv else "lines"
    for piece in FORMATS[form](found, classifier, paths, args.top):
        print(piece, end="")
    if args.explain and classifier.run is not None and tally.read:
        from vitlab.explain import explain

        folder = explain(classifier.run, tally.read, device=args.device)["folder"]
        note(f"maps in {folder}")
    elif tally.unsure:
        note(f"unsure of {tally.unsure:,}: look at the map, with --explain")
    tally.close()
    return 0


def export(args: Namespace) -> int:
    """Export a run's model for other programs, and compare its outputs with the run's."""
    from vitlab.export import export, sentences
    from vitlab.export.hub import push

    if args.push and args.to != "hub":
        raise ConfigError([f"--push uploads what --to hub writes, not --to {args.to}"])
    found = export(args.run, args.to, args.out, data_root=args.data_root)
    if args.push:
        found["address"] = push(found["folder"], args.push)
    if args.json:
        print_json(found)
        return 0
    print("\n".join(sentences(found)))
    sizes = (f"{name}, {one['bytes']:,} bytes" for name, one in found["files"].items())
    print(f"\n{found['folder']}: {'; '.join(sizes)}")
    if args.push:
        print(f"uploaded to {found['address']}")
    return 0
