"""What is used for what, what is passed over, and the ways out of what is refused."""

import os
import shutil
import socket

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from forms import classes, folders, parquet, png, test_of, train_of
from PIL import Image

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data.folder import Folder
from vitlab.data.parquet import Parquet
from vitlab.data.source import split_of
from vitlab.errors import DataError

ABC = ("ant", "bee", "cow")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def told(path="photos", root=None):
    """What a training says of its images."""
    return "\n".join(data.open_dataset(DataConfig(dataset=str(path)), root=root).description)


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
def test_a_part_is_told_by_the_words_of_a_name(name, part):
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
def test_splits_of_other_names_are_splits_and_no_classes(here, train, test):
    classes(here, train, count=3)
    classes(here, test, count=1)
    source = Folder(here)
    assert source.class_names == ABC and source.has_test
    assert [len(source.read(split)[0]) for split in ("train", "test")] == [9, 3]
    assert f"training images from {train}/, test images from {test}/" in told()


@pytest.mark.parametrize("deep", ["photos", "raw-img", "images", "photos/photos"])
def test_a_set_one_folder_too_deep_is_found(here, deep):
    classes(here, deep)
    assert train_of().class_names == ABC
    assert f"training images from {deep}/, test images drawn: 20 % of every class" in told()


def test_what_is_not_used_is_told_with_its_number_and_why(here):
    classes(here, "train", "test", "val", "chest/train")
    folders(here, "seg_pred", "empty", count=4)
    (here / "readme.txt").touch()
    lines = told()
    assert "val/ (6 images of the validation split) is not used: vitlab draws its own" in lines
    assert "seg_pred/ (4 images) is not used" in lines and "chest/ (6 images)" in lines
    assert "readme.txt" in lines
    assert Folder(classes(here.parent / "plain", "")).notes == []


def test_files_of_other_kinds_are_counted_by_ending(here):
    classes(here, "")
    for number, ending in enumerate((".bmp", ".tif", ".tif", ".txt")):
        (here / "ant" / f"x{number}{ending}").touch()
    (here / "0.png").write_bytes(png())
    folders(here, "bee/more")
    lines = told()
    assert "no PNG, JPEG or WebP by name: 4 files of class folders (.bmp 1, .tif 2" in lines
    assert "not used, beside the class folders: 1 file (.png 1), 0.png" in lines
    assert "bee/more/ 2" in lines


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JFIF"])
def test_other_names_of_jpeg_are_read(here, ending):
    classes(here, "")
    Image.new("RGB", (4, 4)).save(here / "ant" / f"photo{ending}", "JPEG")
    assert len(Folder(here).read("train")[0]) == 7


def test_what_systems_leave_is_no_class_and_no_image(here):
    classes(here, "")
    folders(here, "__MACOSX/ant", "ant/.ipynb_checkpoints", ".git")
    for name in ("ant/Thumbs.db", "desktop.ini", "bee/._0.png"):
        (here / name).touch()
    (here / "ant" / "LOUD.PNG").write_bytes(png())
    source = Folder(here)
    assert source.class_names == ABC and len(source.read("train")[0]) == 7
    assert "hidden or left by the system" in source.notes[0] and len(source.notes) == 1


def test_a_class_of_other_files_says_what_they_are(here):
    classes(here, "")
    for path in list((here / "cow").iterdir()):
        path.rename(path.with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"class cow: its 2 files are .*\(\.bmp 2\). Save them as"):
        train_of()
    for path in list((here / "cow").iterdir()):  # the way out
        Image.open(path).save(path.with_suffix(".png"))
    assert train_of().class_names == ABC


def test_folders_that_hold_the_same_classes_are_no_classes(here):
    classes(here, "entrenamiento", "prueba")
    with pytest.raises(
        DataError,
        match=r"ant, bee, cow: prueba holds the same.*to train and test",
    ):
        train_of()
    assert train_of("photos/entrenamiento", test_fraction=0.5).class_names == ABC
    (here / "entrenamiento").rename(here / "train")
    (here / "prueba").rename(here / "test")
    assert Folder(here).has_test


def test_two_classes_of_the_same_subfolders_can_be_put_right(here):
    folders(here, "cat/left", "cat/right", "dog/left", "dog/right")
    with pytest.raises(DataError, match="if they are classes, move their images directly"):
        train_of()
    for name in ("cat", "dog"):
        for side in ("left", "right"):
            for path in (here / name / side).iterdir():
                path.rename(here / name / f"{side}-{path.name}")
            (here / name / side).rmdir()
    assert train_of().class_names == ("cat", "dog")


def test_splits_inside_classes_are_refused(here):
    folders(here, *(f"{name}/{part}" for name in ABC for part in ("train", "test")))
    with pytest.raises(DataError, match="move them above the classes, as in photos/train/ant"):
        train_of()
    for part in ("train", "test"):
        for name in ABC:
            (here / part).mkdir(exist_ok=True)
            (here / name / part).rename(here / part / name)
    for name in ABC:
        (here / name).rmdir()
    assert Folder(here).has_test


def test_a_copy_of_the_set_inside_it_is_no_class(here):
    classes(here, "", "again")
    with pytest.raises(
        DataError,
        match="again holds the folders ant, bee, cow: they are named like classes beside it",
    ):
        train_of()
    shutil.rmtree(here / "again")
    assert train_of().class_names == ABC


def test_one_folder_that_may_be_a_class_names_the_way_in(here):
    classes(here, "flowers")
    with pytest.raises(DataError, match="ant, bee, cow give photos/flowers as data set"):
        train_of()
    assert train_of("photos/flowers").class_names == ABC


def test_images_in_folders_called_train_and_test_are_no_classes(here):
    folders(here, "train", "test", "valid")
    with pytest.raises(DataError, match=r"hold images and no class folders.*CSV file"):
        train_of()
    lines = [f"{s}/{n}.png,{'ab'[n]},{s}" for s in ("train", "test", "valid") for n in (0, 1)]
    (here / "all.csv").write_text("\n".join(["path,label,split", *lines]))
    assert train_of("photos/all.csv").class_names == ("a", "b")


def test_a_folder_that_may_be_a_class_or_a_split_is_refused(here):
    folders(here, "cat", "dog", "test")
    with pytest.raises(DataError, match="is 'test' a class or a split"):
        train_of()
    (here / "test").rename(here / "test card")
    assert train_of().class_names == ("cat", "dog", "test card")


def test_train_may_be_a_class_among_others(here):
    folders(here, "bus", "car", "train")
    assert train_of().class_names == ("bus", "car", "train")
    folders(here, "train/freight", "train/tram")
    with pytest.raises(DataError, match="'train' the training images, or a class beside bus, car"):
        train_of()
    assert train_of("photos/train").class_names == ("freight", "tram")


def test_two_folders_for_one_part_are_refused(here):
    classes(here, "train", "Training", "test")
    with pytest.raises(DataError, match="Training and train are all called like train"):
        train_of()


@pytest.mark.parametrize("parts", [("",), ("train", "valid", "test")])
def test_sets_for_detection_are_no_classes(here, parts):
    folders(here, *(os.path.join(part, "images") for part in parts))
    for part in parts:
        (here / part / "labels").mkdir()
        (here / part / "labels" / "0.txt").touch()
    with pytest.raises(DataError, match="as sets for detection or segmentation do"):
        train_of()


def test_images_without_classes_are_no_test_split(here):
    classes(here, "train")
    folders(here, "test")
    assert not Folder(here).has_test
    assert "test/ (2 images) is not used: they lie in no class folder" in told()


@pytest.mark.parametrize("link", ["test", "train/kitten"])
def test_links_that_make_a_folder_two_are_refused(here, link):
    classes(here, "train")
    (here / link).symlink_to(here / ("train" if link == "test" else "train/ant"))
    with pytest.raises(DataError, match="are the same folder"):
        train_of()


def test_a_test_split_without_a_class_says_so(here):
    classes(here, "train")
    classes(here, "test", names=ABC[:2])
    assert "no test images of class cow" in told()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("photos.csv", "give photos/photos.csv"),
        ("a.tar", "unpack the archives"),
        ("dataset_dict.json", "load_from_disk"),
    ],
)
def test_a_folder_of_something_else_says_what_to_do(here, file, message):
    (here / file).touch()
    with pytest.raises(DataError, match=message):
        train_of()


def test_what_is_no_set_at_all_is_refused(here):
    (here.parent / "photos.zip").touch()
    with pytest.raises(DataError, match="unpack an archive and give its folder"):
        train_of("photos.zip")
    classes(here, "", "test")
    with pytest.raises(DataError, match="no folder 'train'"):
        train_of()


def pipe(path):
    os.mkfifo(path)


def bind(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path.relative_to(path.parents[2])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.symlink_to("gone.png"), "a broken link to 'gone.png'"),
        (lambda p: p.symlink_to(p.name), "a broken link"),
        (pipe, "not a file: a pipe"), (bind, "not a file: a pipe, a socket"),
        (lambda p: p.write_bytes(b""), "not a PNG"),
    ],
    ids=["broken link", "loop", "pipe", "socket", "empty"],
)  # fmt: skip
def test_what_is_no_file_is_named_and_can_be_left_out(here, make, message):
    make(classes(here, "") / "ant" / "odd.png")
    with pytest.raises(DataError, match=rf"1 of 7 images cannot be read(?s:.)*{message}"):
        train_of()
    with pytest.warns(UserWarning, match=rf"left out:\n.*odd.png': {message}"):
        assert set(train_of(unreadable="skip").labels) == {0, 1, 2}


def test_a_folder_named_like_an_image_is_a_folder(here):
    (classes(here, "") / "ant" / "x.png").mkdir()
    assert len(Folder(here).read("train")[0]) == 6


def test_a_broken_test_image_is_named_as_one_with_advice_that_helps(here):
    classes(here, "train", "test")
    (here / "test" / "ant" / "bad.png").write_text("x")
    config = data.open_dataset(DataConfig(dataset="photos")).config
    train = data.open_dataset(config).examples
    with pytest.raises(DataError, match=r"test images of photos: 1 of 7 .*\n.*bad.png") as error:
        data.load_test(data.open_dataset(config))
    assert "Replace or remove them" in str(error.value)
    skipping = DataConfig(dataset="photos", unreadable="skip")
    with pytest.warns(UserWarning, match="left out"):
        assert len(data.load_test(data.open_dataset(skipping)).labels) == 6
    (here / "test" / "ant" / "bad.png").unlink()
    assert len(data.load_test(data.open_dataset(config)).labels) == 6
    assert data.open_dataset(config).examples.fingerprint == train.fingerprint


def test_a_drawn_test_image_is_to_be_replaced(here):
    for path in (classes(here, "", count=4) / "ant").iterdir():
        path.write_text("x")
    config = DataConfig(dataset="photos", image_size=(4, 4), channels=3, classes=3)
    with pytest.raises(DataError, match=r"test images of photos(?s:.)*\nReplace them; a run keeps"):
        data.load_test(data.open_dataset(config))


def test_an_own_folder_called_like_a_known_set_is_told_of(here, monkeypatch):
    classes(here.parent / "digits", "", names=("0", "1"))
    assert "the folder digits is not used: for it give ./digits" in told("digits")
    assert train_of("./digits").class_names == ("0", "1")
    monkeypatch.chdir(here)
    assert f"for it give {here.parent}/digits" in told("digits", here.parent)
    monkeypatch.chdir(here.parent)
    classes(here.parent / "cifar10", "")
    with pytest.raises(DataError, match=r"For a folder of class folders give \./cifar10"):
        train_of("cifar10", ".")
    assert train_of("./cifar10").class_names == ABC


def test_classes_are_counted_by_name_or_by_their_extremes():
    assert data.class_counts(np.array([0, 1, 1]), ("a\x1b", "b")) == "a\ufffd 1, b 2"
    many = tuple(f"c{number:02}" for number in range(20))
    labels = np.repeat(np.arange(20), [9] * 7 + [2] + [9] * 11 + [30])
    assert data.class_counts(labels, many) == "20, the smallest c07 2, the largest c19 30"


# Parquet


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "cat", "dog"], ("cat", "dog")), ([1.0, 0.0, 1.0], ("0", "1")),
        ([True, False, True], ("False", "True")),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), ("cat", "dog")),
    ],
    ids=["text", "floats", "bools", "categories"],
)  # fmt: skip
@pytest.mark.parametrize("plain", [True, False])
def test_labels_may_be_text_floats_or_bools_and_images_plain_bytes(here, labels, names, plain):
    parquet(here / "train.parquet", labels, plain=plain)
    parquet(here / "test.parquet", labels[:2], plain=plain)
    train, test = train_of(), test_of("photos")
    assert train.class_names == names
    assert sorted(train.labels) == [0, 1, 1] and sorted(test.labels) == [0, 1]


def test_a_label_by_name_goes_before_other_integers(here):
    parquet(here / "train.parquet", ["a", "b", "a"], id=[1, 2, 3])
    source = Parquet(here)
    assert source.label == "label" and source.notes == ["columns that are not used: id"]


def test_labels_that_are_no_classes_are_refused(here):
    parquet(here / "train.parquet", [0.5, 1.0])
    with pytest.raises(DataError, match="numbers that are not whole"):
        train_of()
    parquet(here / "train.parquet", ["a", "b"])
    parquet(here / "test.parquet", ["a", "c"])
    with pytest.raises(DataError, match="classes without training images: c"):
        test_of("photos", image_size=(4, 4), channels=3)


def test_test_files_are_never_trained_on(here):
    parquet(here / "data-00000.parquet", [0, 1])
    parquet(here / "test.parquet", [0, 1])
    with pytest.raises(DataError, match=r"rename data-00000\.parquet, as in train-0\.parquet"):
        train_of()
    (here / "data-00000.parquet").rename(here / "train-0.parquet")
    assert len(train_of().labels) == 2 and Parquet(here).has_test
    (here / "train-0.parquet").unlink()
    with pytest.raises(DataError, match=r"no Parquet file with 'train'.*give a file as data set"):
        train_of()
    assert len(Parquet(here / "test.parquet").read("train")[0]) == 2


@pytest.mark.parametrize("names", [("training", "testing"), ("TRAIN", "Eval"), ("train", "dev")])
def test_parts_of_parquet_have_the_same_other_names(here, names):
    for name in names:
        parquet(here / name / "0.parquet", [0, 1])
    assert Parquet(here).has_test


def test_validation_files_beside_test_files_are_told_of(here):
    for name in ("train", "validation", "test"):
        parquet(here / "data" / f"{name}-0.parquet", [0, 1])
    folders(here, "pictures")
    lines = told()
    assert "data/validation-0.parquet (2 images of the validation split) is not used" in lines
    assert "not used, beside the Parquet files: .png 2; to use images" in lines
    assert "images from column image, labels from column label" in lines


def test_two_configurations_are_refused(here):
    for name in ("small", "large"):
        parquet(here / name / "train.parquet", [0, 1])
    with pytest.raises(DataError, match=r"in large, small: give one of them.* as photos/large"):
        train_of()
    assert len(Parquet(here / "large").read("train")[0]) == 2


def test_a_column_of_splits_is_not_trained_over(here, monkeypatch):
    parquet(here / "all.parquet", [0, 1, 0, 1], split=["train", "train", "test", "test"])
    with pytest.raises(DataError, match=r"column 'split' says test, train: write each into a file"):
        train_of()
    whole = pq.read_table(here / "all.parquet")
    (here / "all.parquet").unlink()
    for part in ("train", "test"):
        pq.write_table(whole.filter(pc.field("split") == part), here / f"{part}.parquet")
    assert len(train_of().labels) == 2


# The header of a training


def test_a_training_says_classes_and_what_is_not_used(here, capsys):
    import vitlab

    classes(here, "Training", "Testing", "[bold]", count=8)
    (here / "Training" / "ant" / "x.bmp").touch()
    recipe = vitlab.recipe("digits").override(
        {"data.dataset": "photos", "model.depth": 1, "model.width": 16, "model.heads": 1,
         "train.epochs": 1, "model.patch_size": 4}
    )  # fmt: skip
    vitlab.train(recipe, out="runs", device="cpu")
    said = capsys.readouterr().err
    assert "classes     ant 8, bee 8, cow 8\n" in said
    assert "images      training images from Training/, test images from Testing/\n" in said
    assert "[bold]/ (24 images) is not used" in said and ".bmp 1" in said
