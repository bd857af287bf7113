"""Class folders: what is used for what, what is passed over, and the ways out of refusals."""

import os
import socket

import numpy as np
import pytest
from forms import classes, description, folders, parquet, pixels, png, test_of, train_of
from PIL import Image

import vitlab
from vitlab import data
from vitlab.config import DataConfig
from vitlab.data import decode
from vitlab.data.folder import Folder
from vitlab.data.source import split_of
from vitlab.errors import DataError

ABC = ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Training", "train"), ("TRAIN", "train"), ("seg_train", "train"), ("trainSet", "train"),
        ("train_images", "train"), ("training_set", "train"), ("train2017", "train"),
        ("Testing", "test"), ("Test Data", "test"), ("test-set", "test"), ("holdout", "test"),
        ("Valid", "validation"), ("val", "validation"), ("dev", "validation"),
        ("eval", "validation"), ("ValidationImages", "validation"), ("train_val", None),
        ("trains", None), ("contest", None), ("validity", None), ("数据", None),
    ],
)  # fmt: skip
def test_a_part_is_found_by_the_words_of_a_name(name, part):
    assert split_of(name) == (part, split_of(name)[1])
    assert (part is None) or split_of(name)[1] == ()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("seg_train/seg_train", "seg_test/seg_test"),
        ("train_images", "test_images"), ("TRAIN", "TEST"), ("Train", "Validation"),
        ("train", "dev"), ("training_set/training_set", "test_set/test_set"),
        ("letters_train", "letters_test"), ("photos/train", "photos/test"),
        ("fruits-360/Training", "fruits-360/Test"), ("data/train", "data/valid"),
    ],
)  # fmt: skip
def test_splits_of_other_names_are_splits_and_no_classes(photos, train, test):
    classes(photos, train, count=3)
    classes(photos, test, count=1)
    source = Folder(photos)
    assert source.class_names == ABC and source.has_test
    assert [len(source.read(split)[0]) for split in ("train", "test")] == [9, 3]
    assert f"training images from {train}/, test images from {test}/" in description()


@pytest.mark.parametrize("deep", ["photos", "raw-img", "images", "photos/photos"])
def test_a_set_one_folder_too_deep_is_found(photos, deep):
    classes(photos, deep)
    assert train_of().class_names == ABC
    assert f"training images from {deep}/, test images drawn: 20 % of every class" in description()


def test_class_folders_become_training_and_test_images(photos):
    path = classes(photos, "train", "test", shape=(6, 8, 3))
    config = data.open_dataset(DataConfig(dataset=str(path))).config
    assert (config.image_size, config.channels, config.classes) == ((6, 8), 3, 3)
    train, test = train_of(), test_of()
    assert train.class_names == ABC
    assert np.bincount(train.labels).tolist() == np.bincount(test.labels).tolist() == [2, 2, 2]
    with Image.open(path / "test" / "cow" / "0.png") as image:
        (place,) = np.flatnonzero((test.images == np.asarray(image)).all((1, 2, 3)))
    assert test.class_names[test.labels[place]] == "cow"


def test_a_folder_without_a_test_split_gives_up_a_stratified_share(photos):
    classes(photos, "", count=10)
    train, test = train_of(test_fraction=0.3), test_of(test_fraction=0.3)
    assert np.bincount(train.labels).tolist() == [7, 7, 7]
    assert np.bincount(test.labels).tolist() == [3, 3, 3]
    assert not {image.tobytes() for image in train.images} & {i.tobytes() for i in test.images}


def test_classes_are_numbered_by_code_point_and_found_by_name_below_the_root(photos, monkeypatch):
    names = ("10", "9", "Zebra", "ant", "数据 🐿", "-x")
    classes(photos.parent / "root" / "zoo", "", names=names)
    assert train_of("zoo", photos.parent / "root").class_names == tuple(sorted(names))
    monkeypatch.setenv("VITLAB_DATA", str(photos.parent / "root"))
    assert data.open_dataset(DataConfig(dataset="zoo")).config.classes == 6


# What is passed over


def test_what_is_not_used_is_listed_with_its_number_and_why(photos):
    classes(photos, "train", "test", "val", "chest/train")
    folders(photos, "seg_pred", "empty", count=4)
    (photos / "readme.txt").touch()
    lines = description()
    assert "val/ (6 images of the validation split) is not used: vitlab draws its own" in lines
    assert "seg_pred/ (4 images) is not used" in lines and "chest/ (6 images)" in lines
    assert "readme.txt" in lines
    assert Folder(classes(photos.parent / "plain", "")).notes == []


def test_files_of_other_kinds_are_counted_by_ending(photos):
    classes(photos, "")
    for number, ending in enumerate((".bmp", ".tif", ".tif", ".txt")):
        (photos / "ant" / f"x{number}{ending}").touch()
    (photos / "0.png").write_bytes(png())
    folders(photos, "bee/more")
    lines = description()
    assert "no PNG, JPEG or WebP by name: 4 files of class folders (.bmp 1, .tif 2" in lines
    assert "not used, beside the class folders: 1 file (.png 1), 0.png" in lines
    assert "bee/more/ 2" in lines


def test_every_name_of_an_image_is_read_and_what_systems_leave_is_none(photos):
    classes(photos, "")
    folders(photos, "__MACOSX/ant", "ant/.ipynb_checkpoints", ".git")
    for name in ("ant/Thumbs.db", "desktop.ini", "bee/._0.png"):
        (photos / name).touch()
    (photos / "cow" / "x.png").mkdir()  # a folder, whatever it is called
    (photos / "ant" / "LOUD.PNG").write_bytes(png())
    for ending in (".jfif", ".jpe", ".JFIF"):
        Image.new("RGB", (4, 4)).save(photos / "ant" / f"photo{ending}", "JPEG")
    source = Folder(photos)
    assert source.class_names == ABC and len(source.read("train")[0]) == 10
    assert "hidden or left by the system" in source.notes[0]


def test_images_without_classes_are_no_test_split(photos):
    classes(photos, "train")
    folders(photos, "test")
    assert not Folder(photos).has_test
    assert "test/ (2 images) is not used: they lie in no class folder" in description()


def test_a_test_split_without_a_class_says_so(photos):
    classes(photos, "train")
    classes(photos, "test", names=ABC[:2])
    assert "no test images of class cow" in description()


def test_an_own_folder_called_like_a_known_set_is_named(photos, monkeypatch):
    classes(photos.parent / "digits", "", names=("0", "1"))
    assert "the folder digits is not used: for it give ./digits" in description("digits")
    assert train_of("./digits").class_names == ("0", "1")
    monkeypatch.chdir(photos)
    assert f"for it give {photos.parent}/digits" in description("digits", photos.parent)
    monkeypatch.chdir(photos.parent)
    classes(photos.parent / "cifar10", "")
    with pytest.raises(DataError, match=r"For a folder of class folders give \./cifar10"):
        train_of("cifar10", ".")
    assert train_of("./cifar10").class_names == ABC


def test_a_training_says_classes_and_what_is_not_used(photos, capsys):
    classes(photos, "Training", "Testing", "[bold]", count=8)
    (photos / "Training" / "ant" / "x.bmp").touch()
    recipe = vitlab.recipe("digits").override(
        {"data.dataset": "photos", "model.depth": 1, "model.width": 16, "model.heads": 1,
         "train.epochs": 1, "model.patch_size": 4}
    )  # fmt: skip
    vitlab.train(recipe, out="runs", device="cpu")
    said = capsys.readouterr().err
    assert "classes     ant 8, bee 8, cow 8, validation images included\n" in said
    assert "files       training images from Training/, test images from Testing/\n" in said
    assert "[bold]/ (24 images) is not used" in said and ".bmp 1" in said


def test_classes_are_counted_by_name_or_by_their_extremes():
    assert data.class_counts(np.array([0, 1, 1]), ("a\x1b", "b")) == "a\ufffd 1, b 2"
    many = tuple(f"c{number:02}" for number in range(20))
    labels = np.repeat(np.arange(20), [9] * 7 + [2] + [9] * 11 + [30])
    assert data.class_counts(labels, many) == "20, the smallest c07 2, the largest c19 30"


# What is refused


def inside(*parts: str) -> list[str]:
    return [os.path.join(part, name) for part in parts for name in ABC]


SIDES = [f"{name}/{side}" for name in ("cat", "dog") for side in ("left", "right")]


@pytest.mark.parametrize(
    ("given", "message", "moves", "path", "names"),
    [
        (inside("entrenamiento", "prueba"), "ant, bee, cow: prueba holds the same.*train and test",
         {"entrenamiento": "train", "prueba": "test"}, "", ABC),
        (inside("entrenamiento", "prueba"), "holds the same", {}, "entrenamiento", ABC),
        (SIDES, "if they are classes, move their images directly",
         {f"{side}/{n}.png": f"{side.replace('/', '/x')}{n}.png" for side in SIDES for n in (0, 1)},
         "", ("cat", "dog")),
        ([f"{name}/{part}" for name in ABC for part in ("train", "test")],
         "move them above the classes, as in photos/train/ant",
         {f"{name}/{part}": f"{part}/{name}" for name in ABC for part in ("train", "test")},
         "", ABC),
        (inside("", "again"), "again holds the folders ant, bee, cow: they are named like classes",
         {"again": "../again"}, "", ABC),
        (inside("flowers"), "ant, bee, cow give photos/flowers as data set", {}, "flowers", ABC),
        (["cat", "dog", "test"], "is 'test' a class or a split", {"test": "test card"}, "",
         ("cat", "dog", "test card")),
        (["bus", "car", "train", "train/freight", "train/tram"],
         "'train' the training images, or a class beside bus, car", {}, "train",
         ("freight", "tram")),
        (inside("train", "Training", "test"), "Training and train are all called like train",
         {"Training": "../more"}, "", ABC),
    ],
)  # fmt: skip
def test_a_set_that_may_be_two_is_refused_and_the_way_out_works(
    photos, given, message, moves, path, names
):
    folders(photos, *given)
    with pytest.raises(DataError, match=message):
        train_of()
    for old, new in moves.items():
        (photos / new).parent.mkdir(exist_ok=True)
        (photos / old).rename(photos / new)
    for folder in sorted(photos.rglob("*/"), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    assert train_of(f"photos/{path}", test_fraction=0.5).class_names == names
    assert Folder(photos / path).has_test == (photos / path / "test").exists()


def test_train_may_be_a_class_among_others(photos):
    folders(photos, "bus", "car", "train")
    assert train_of().class_names == ("bus", "car", "train")


def test_images_in_folders_called_train_and_test_are_no_classes(photos):
    folders(photos, "train", "test", "valid")
    with pytest.raises(DataError, match=r"hold images and no class folders.*CSV file"):
        train_of()
    lines = [f"{s}/{n}.png,{'ab'[n]},{s}" for s in ("train", "test", "valid") for n in (0, 1)]
    (photos / "all.csv").write_text("\n".join(["path,label,split", *lines]))
    assert train_of("photos/all.csv").class_names == ("a", "b")


def test_a_class_of_other_files_says_what_they_are(photos):
    classes(photos, "")
    for path in list((photos / "cow").iterdir()):
        path.rename(path.with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"class cow: its 2 files are .*\(\.bmp 2\). Save them as"):
        train_of()
    for path in list((photos / "cow").iterdir()):  # the way out
        Image.open(path).save(path.with_suffix(".png"))
    assert train_of().class_names == ABC


@pytest.mark.parametrize("parts", [("",), ("train", "valid", "test")])
def test_sets_for_detection_are_no_classes(photos, parts):
    for part in parts:
        folders(photos / part, "images")
        (photos / part / "labels").mkdir()
        (photos / part / "labels" / "0.txt").touch()
    with pytest.raises(DataError, match="as sets for detection or segmentation do"):
        train_of()


@pytest.mark.parametrize("link", ["test", "train/kitten"])
def test_links_that_make_a_folder_two_are_refused(photos, link):
    classes(photos, "train")
    (photos / link).symlink_to(photos / ("train" if link == "test" else "train/ant"))
    with pytest.raises(DataError, match="are the same folder"):
        train_of()


def test_a_circle_of_links_ends(photos):
    classes(photos, "train", "test")
    (photos / "train" / "ant" / "again").symlink_to(photos / "train" / "ant")
    (photos / "train" / "bee" / "up").symlink_to(photos / "train" / "bee")
    assert np.bincount(train_of().labels).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("photos.csv", "give photos/photos.csv"),
        ("a.tar", "unpack the archives"),
        ("dataset_dict.json", "load_from_disk"),
        ("../photos.zip", "unpack an archive and give its folder"),
    ],
)
def test_something_else_than_a_set_says_what_to_do(photos, file, message):
    (photos / file).touch()
    with pytest.raises(DataError, match=message):
        train_of("photos.zip" if ".zip" in file else "photos")


@pytest.mark.parametrize(
    ("names", "extra", "message"),
    [
        ((), "", "neither class folders nor Parquet"),
        (("cat",), "", "one class, cat"),
        (("cat", "dog"), "train/empty", "no training image of class empty"),
        (("cat", "dog"), "test/emu", "classes without training images: emu"),
        (("cat", "Cat"), "", "Cat.* differ only in case or in spaces"),
        (("caf\u00e9", "cafe\u0301"), "", "differ only in case or"),
        (("cat", "do\ng"), "", r"do\\ng' cannot be printed"),
        (("cat", os.fsdecode(b"d\xff")), "", r"udcff' cannot be printed"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(photos, names, extra, message):
    classes(photos, "train", "test", names=names)
    (photos / extra).mkdir(exist_ok=True)
    with pytest.raises(DataError, match=message):
        train_of()


def test_a_test_split_alone_is_refused(photos):
    classes(photos, "", "test")
    with pytest.raises(DataError, match="no folder 'train'"):
        train_of()


# Size, channels and shape


def test_images_take_the_size_and_channels_that_are_asked_for(photos):
    classes(photos, "")
    assert train_of(image_size=(5, 6), channels=1).images.shape[1:] == (5, 6, 1)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_images_of_another_shape_fit_alike_in_every_format(photos, fit):
    classes(photos, "train", "test", count=1, shape=(6, 12, 3))
    files = sorted(photos.glob("*/*/0.png"))
    lines = [f"{path},{path.parts[-2]},{path.parts[-3]}" for path in files]
    (photos.parent / "set.csv").write_text("\n".join(["path,label,split", *lines]))
    training = [path for path in files if path.parts[-3] == "train"]
    images = [np.asarray(Image.open(path)) for path in training]
    for split in ("train", "test"):
        parquet(photos.parent / "parquet" / f"{split}.parquet", [0, 1, 2], ABC, images=images)
    wish = {"image_size": (8, 8), "channels": 3, "fit": fit}
    read = [train_of(name, **wish) for name in ("photos", "set.csv", "parquet")]
    assert len({examples.fingerprint for examples in read}) == 1
    own = [decode(path, (8, 8), 3, fit) for path in training]
    assert all((read[0].images == image).all((1, 2, 3)).any() for image in own)


def test_grey_images_make_a_grey_set_and_one_coloured_image_makes_it_colour(photos):
    classes(photos, "train", "test", shape=(4, 4))
    assert train_of().images.shape[-1] == 1
    (photos / "train" / "ant" / "red.png").write_bytes(png())
    assert train_of().images.shape[-1] == 3


def test_images_of_several_sizes_ask_for_a_size(photos):
    classes(photos, "train", "test")
    (photos / "train" / "ant" / "big.png").write_bytes(png(pixels(9, 12, 3)))
    with pytest.raises(DataError, match=r"2 sizes, \(4, 4\) to \(9, 12\).*set data.image_size"):
        train_of()
    assert train_of(image_size=(8, 8)).images.shape == (7, 8, 8, 3)


# Images that cannot be read


def bind(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # its name may not be long


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.symlink_to("gone.png"), "a broken link to 'gone.png'"),
        (lambda p: p.symlink_to(p.name), "a broken link"),
        (os.mkfifo, "not a file: a pipe"), (bind, "not a file: a pipe, a socket"),
        (lambda p: p.write_bytes(b""), "not a PNG"),
    ],
    ids=["broken link", "loop", "pipe", "socket", "empty"],
)  # fmt: skip
def test_what_is_no_image_is_named_and_can_be_left_out(photos, make, message):
    classes(photos, "train", "test")
    whole = train_of()
    make(photos / "train" / "ant" / "odd.png")
    with pytest.raises(DataError, match=rf"1 of 7 images cannot be read(?s:.)*{message}"):
        train_of()
    for _ in range(2):  # said every time
        with pytest.warns(UserWarning, match=rf"left out:\n.*odd.png': {message}"):
            found = train_of(unreadable="skip")
        assert found.skipped == 1 and found.fingerprint == whole.fingerprint


def test_a_class_of_which_nothing_can_be_read_is_refused_all_the_same(photos):
    for path in (classes(photos, "train", "test") / "train" / "cow").iterdir():
        path.write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(DataError, match="no training image of class cow"),
    ):
        train_of(unreadable="skip")


def test_all_unreadable_images_are_named_at_once(photos):
    classes(photos, "train", "test", count=15)
    for number in range(12):
        (photos / "train" / "bee" / f"{number}.png").write_bytes(b"text"[: number % 5])
    for fields in ({}, {"image_size": (8, 8), "channels": 3}):
        with pytest.raises(DataError, match="12 of 45 images cannot be read") as error:
            train_of(**fields)
        assert "bee/0.png': not a PNG" in str(error.value) and "and 2 more" in str(error.value)


def test_a_broken_test_image_is_named_as_one_with_advice_that_helps(photos):
    classes(photos, "train", "test")
    bad = photos / "test" / "ant" / "bad.png"
    bad.write_text("x")
    before = train_of()
    with pytest.raises(DataError, match=r"test images of photos: 1 of 7 .*\n.*bad.png") as error:
        test_of()
    assert "Replace or remove them" in str(error.value)
    with pytest.warns(UserWarning, match="left out"):
        assert len(test_of(unreadable="skip").labels) == 6
    bad.unlink()
    assert len(test_of().labels) == 6
    assert train_of().fingerprint == before.fingerprint


def test_a_drawn_test_image_is_to_be_replaced(photos):
    for path in (classes(photos, "", count=4) / "ant").iterdir():
        path.write_text("x")
    with pytest.raises(DataError, match=r"test images of photos(?s:.)*\nReplace them; a run keeps"):
        test_of(image_size=(4, 4), channels=3, classes=3)
