"""A CSV of paths and labels: what it may say, and every complaint with its line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forms import test_of, train_of
from PIL import Image

from vitlab import data
from vitlab.config import DataConfig
from vitlab.data.table import Table
from vitlab.errors import DataError


@pytest.fixture(autouse=True)
def photos(tmp_path):
    """Six images of their own brightness, some of them in a folder below."""
    (tmp_path / "more").mkdir()
    for number in range(6):
        place = tmp_path / ("more" if number > 3 else "") / f"{number}.png"
        Image.new("L", (4, 4), number).save(place)
    return tmp_path


def table(folder, *lines, name="photos.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def shown(examples):
    """Each image's number and class name."""
    names = [examples.class_names[label] for label in examples.labels]
    return sorted(zip(examples.images[:, 0, 0, 0].tolist(), names, strict=True))


def test_paths_are_relative_to_the_table_and_rows_keep_their_order(photos, monkeypatch):
    table(photos, "path,label", "3.png,dog", "more/5.png,cat", "0.png,dog", f"{photos}/1.png,cat")
    monkeypatch.chdir("/")
    examples = train_of(photos / "photos.csv", test_fraction=0.5)
    assert examples.class_names == ("cat", "dog")
    assert set(shown(examples)) < {(3, "dog"), (5, "cat"), (0, "dog"), (1, "cat")}
    everything = Table(photos / "photos.csv").read("train")
    assert [Path(str(path)).name for path in everything[0]] == ["3.png", "5.png", "0.png", "1.png"]
    assert everything[1].tolist() == [1, 0, 1, 0]


def test_a_table_as_a_spreadsheet_writes_it_is_read(photos):
    path = table(
        photos, "id, label ,path", '7,"Cat, big",0.png', "", '8, dog , "1.png"\r',
        encoding="utf-8-sig",
    )  # fmt: skip
    rows = Table(path)
    assert rows.class_names == ("Cat, big", "dog")
    assert [row.line for row in rows.train] == [2, 4]


def test_a_table_is_found_by_its_name_below_the_root(photos):
    table(photos, "path,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(4)))
    assert data.open_dataset(DataConfig(dataset="photos.csv"), root=photos).config.classes == 2


def test_an_edited_table_is_read_anew(photos):
    lines = ["path,label,split", "0.png,a,train", "1.png,b,train", "2.png,a,test"]
    before = train_of(table(photos, *lines))
    after = train_of(table(photos, *lines, "3.png,b,train"))
    assert (len(before.labels), len(after.labels)) == (2, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no column path and no column label among ''"),
        (["path:label", "0.png:a"], "no column path and no column label among 'path:label'"),
        (["place,label", "0.png,a"], "no column path among 'place, label'"),
        (["path,label"], "no training images"),
        (["path,label", "0.png,a", "x.png,b"], "line 3: x.png is not a file below"),
        (["path,label", "more,a"], "line 2: more is not a file"),
        (["path,label", ",a"], "line 2: no path"),
        (["path,label", "0.png,a", "1.png, "], "line 3: no label"),
        (["path,label", "0.png,a", "1.png"], "line 3: no label"),
        (["path,label", "0.png,a", "1.png,b", "0.png,b"], "line 4: 0.png is on line 2 already"),
        (["path,label,split", "0.png,a,odd"], "line 2: split 'odd' is not one of train, test"),
        (["path,label,split", "0.png,a,"], "line 2: split '' is not one of"),
        (["path,label,split", "0.png,a,test"], "no training images"),
        (["path,label,split", "0.png,a,train", "1.png,emu,test"], "training images: emu"),
        (["path,label", "0.png,a", "1.png,a"], "one class, a"),
        (["path,label", "0.png,Cat", "1.png,cat"], "'Cat' and 'cat' differ only in case"),
        (["path,label", "0.png,a", "1.png,b\x1b"], r"'b\\x1b' cannot be printed"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(photos, lines, message):
    with pytest.raises(DataError, match=message):
        train_of(table(photos, *lines), image_size=(4, 4), channels=1)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "names",
    [
        ("path", "label", "split"), ("Filename", "Class", "subset"),
        ("image_path", "category", "Set"), ("file name", "target", "data set"),
        ("filepaths", "labels", "phase"), ("image", "class_name", "Split"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_usual_names_of_columns_and_separators_are_read(photos, names, separator):
    lines = names, ("0.png", "a", "Train"), ("1.png", "b", "TRAINING"), ("2.png", "b", "Test")
    path = table(photos, *map(separator.join, lines))
    assert shown(train_of(path)) == [(0, "a"), (1, "b")]
    assert shown(test_of(path)) == [(2, "b")]
    columns = "paths from column {}, labels from column {}, splits from column {}".format(*names)
    assert data.open_dataset(DataConfig(dataset=str(path))).description == [columns]


@pytest.mark.parametrize(
    ("lines", "message", "way_out"),
    [
        (["file,image,label", "0.png,x,a", "1.png,y,b"], "'file' and 'image' may all be",
         ["path,image,label", "0.png,x,a", "1.png,y,b"]),
        (["path,class,category", "0.png,a,b"], "'class' and 'category' may all be",
         ["path,label,category", "0.png,a,b", "1.png,b,b"]),
        (["path,label,kind", "0.png,a,train", "1.png,b,val"], "column 'kind' looks like",
         ["path,label,split", "0.png,a,train", "1.png,b,train"]),
        (["path,label,subset", "0.png,a,train", "1.png,b,odd"], "split 'odd' is not one of",
         ["path,label,subset", "0.png,a,train", "1.png,b,train"]),
        (["path,label,split", "0.png,a,train", "./0.png,a,test"], r"\./0.png is on line 2",
         ["path,label,split", "0.png,a,train", "./1.png,b,train"]),
        (["path,label", "more/4.png,a", "more/../more/4.png,b"], "on line 2 already",
         ["path,label", "more/4.png,a", "more/../more/5.png,b"]),
        (["path,label", "0.png,0.5", "1.png,1.0"], r"labels such as 0\.5 are not whole",
         ["path,label", "0.png,half", "1.png,1.0"]),
        (["path,label", "0.png,a", "1.png,big, b"], "line 3: more cells than columns",
         ["path,label", "0.png,a", '1.png,"big, b"']),
        (["path,label", "4.png,a", "1.png,b"], "4.png is not a file below .*, but more/4.png is",
         ["path,label", "more/4.png,a", "1.png,b"]),
        (["path,label", "0,a", "1.png,b"], "0 is not a file below .*, but 0.png is",
         ["path,label", "0.png,a", "1.png,b"]),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_refused_and_the_way_out_works(photos, lines, message, way_out):
    with pytest.raises(DataError, match=message):
        Table(table(photos, *lines))
    assert len(Table(table(photos, *way_out)).train) >= 1


def test_a_linked_file_is_the_same_file(photos):
    (photos / "link.png").symlink_to(photos / "0.png")
    with pytest.raises(DataError, match=r"link\.png is on line 2 already as 0\.png"):
        Table(table(photos, "path,label,split", "0.png,a,train", "link.png,a,test"))


def test_what_is_read_otherwise_than_written_is_listed(photos):
    lines = r"more\4.png,10.0,4", "1.png,9,4", "2.png,2,4"
    path = table(photos, "path,label,width", *lines)
    notes = Table(path).notes
    assert Table(path).class_names == ("2", "9", "10")  # in order of value
    assert notes == [
        "columns that are not used: width",
        "backslashes are read as slashes in 1 path",
        "labels are read as whole numbers, such as 10.0 as 10",
    ]


def test_validation_rows_stand_in_for_test_rows_only_where_those_are_missing(photos):
    lines = ["0.png,a,train", "1.png,b,train", "2.png,b,test", "3.png,a,Valid"]
    path = table(photos, "path,label,split", *lines)
    assert "rows (1 image of the validation split) is not used" in Table(path).notes[0]
    assert shown(train_of(path)) == [(0, "a"), (1, "b")] and shown(test_of(path)) == [(2, "b")]
    path = table(photos, "path,label,split", *lines[:2], lines[3])
    notes = Table(path).notes
    assert notes == ["validation images of the table stand in for test images, which are missing"]
    assert shown(test_of(path)) == [(3, "a")]


def test_everything_wrong_is_said_at_once_up_to_ten_lines(photos):
    path = table(photos, "path,label", *(f"missing/{number}.png,a" for number in range(25)))
    with pytest.raises(DataError, match="and 15 more") as error:
        train_of(path)
    assert str(error.value).count("is not a file") == 10


def test_another_encoding_is_named(photos):
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        train_of(table(photos, "path,label", "0.png,Äpfel", encoding="latin-1"))


SEVERAL = DataConfig(task="multilabel", validation_fraction=0.0, test_fraction=0.5)


def several(path, **fields):
    return data.open_dataset(replace(SEVERAL, dataset=str(path), **fields))


def test_a_column_of_several_labels_and_a_column_for_each_are_the_same_data(photos):
    joined = table(
        photos, "path,label", "0.png,cat|sun", "1.png, sun | cat|sun", "2.png,", "3.png,cat",
        "more/4.png,sun", "more/5.png,cat", name="joined.csv",
    )  # fmt: skip
    columns = table(
        photos, "path,sun,id,cat", "0.png,1,7,1", "1.png,1.0,8,1", "2.png,0,9,0", "3.png,,10,1",
        "more/4.png,true,11,false", "more/5.png,0,12,1", name="columns.csv",
    )  # fmt: skip
    one, other = several(joined), several(columns)
    assert one.examples.class_names == ("cat", "sun")
    assert one.examples.labels.dtype == np.uint8
    assert one.examples.fingerprint == other.examples.fingerprint
    assert data.load_test(one).fingerprint == data.load_test(other).fingerprint
    assert "1 image without a label: none of the classes is in them" in one.description
    assert "columns that are not used: id" in other.description
    assert "labels from columns of 0 and 1, cat, sun" in other.description[0]
    again = table(
        photos, "path;label", "0.png;cat,sun", "1.png;sun,cat", "2.png;", "3.png;cat",
        "more/4.png;sun", "more/5.png;cat", name="again.csv",
    )  # fmt: skip
    found = several(again, label_separator=",").examples
    assert found.fingerprint == one.examples.fingerprint
    images = np.array([[number] * 16 for number in range(6)], np.uint8).reshape(6, 4, 4)
    labels = np.array([[1, 1], [1, 1], [0, 0], [1, 0], [0, 1], [1, 0]])
    given = data.from_arrays(images, labels, ("cat", "sun"), task="multilabel")
    keys = np.concatenate([one.examples.keys, data.load_test(one).keys])
    assert np.array_equal(np.sort(keys), given.keys)
    both = np.concatenate([one.examples.labels, data.load_test(one).labels])
    assert np.array_equal(both[keys.argsort()], given.labels)


def test_what_holds_several_labels_names_the_option_and_what_holds_one_refuses_it(photos):
    columns = table(photos, "path,sun,cat", *(f"{n}.png,{n % 2},1" for n in range(4)))
    with pytest.raises(DataError, match=r"columns of 0 and 1: sun, cat.*--data\.task multilabel"):
        data.open_dataset(DataConfig(dataset=str(columns)))
    joined = table(
        photos, "path,label", "0.png,cat|sun", "1.png,cat", "2.png,sun", "3.png,cat|sun",
        name="joined.csv",
    )  # fmt: skip
    assert "cat|sun is read as one class" in Table(joined).notes[0]
    for other in (photos, "digits", "cifar10"):
        with pytest.raises(DataError, match=r"data\.task=multilabel needs a CSV file"):
            several(other)
    with pytest.raises(DataError, match="the column 'sun' holds 'u'"):
        several(columns, label_separator="u")
