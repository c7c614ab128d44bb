"""The catalog of public data sets: their cameras, rates, true motion and licenses, found by name.

`python -m genie_datasets.sources.catalog` prints it as the table of datasets/README.md.

The rate matters because a latent action spans the time between two frames: mixing rates mixes meanings.
"""

from dataclasses import dataclass

DEFAULT_HZ = 3.0
OXE = "CC-BY-4.0 (Open X-Embodiment)"


@dataclass(frozen=True)
class DataSet:
    """One row of the catalog; figures are those of the published version."""

    name: str
    """A data set belongs to the row whose name is the longest beginning of its own name."""
    title: str
    image_key: str
    hz: float
    size: str
    """Image size, HEIGHTxWIDTH."""
    episodes: str
    get: str
    """How to get it, as the catalog prints it."""
    license: str
    citation: str
    address: str = ""
    """Folder of a bucket that holds features.json; empty: in no bucket."""
    keep_if: str = ""
    """A boolean of the episode: only episodes in which it is true are read (`--unfiltered` reads all)."""
    motion: str = ""
    """Field with the true motion; empty: unknown, and the report judges by optical flow."""
    quirks: str = ""


CATALOG = (
    DataSet(
        "tabletop", "tabletop", "image", 3.0, "any", "as many as you like", "`genie-robotics data tabletop`",
        "Apache-2.0, with this code", "this repository", motion="steps/truth/*",
    ),
    DataSet(
        "fractal20220817_data", "RT-1", "image", 3.0, "256x320", "87,212",
        "`gsutil -m cp -r gs://gresearch/robotics/fractal20220817_data/0.1.0 .` (111 GiB; a few of the 1,024 shards "
        "do)",
        OXE, "Brohan et al. 2022, arXiv:2212.06817", "gs://gresearch/robotics/fractal20220817_data/0.1.0",
        motion="steps/observation/base_pose_tool_reached",
        quirks="no val split; the shortest episodes have 14 frames, fewer than a clip",
    ),
    DataSet(
        "kuka", "QT-Opt", "image", 10.0, "512x640", "580,392, of which those with success are read",
        "`gs://gresearch/robotics/kuka/0.1.0` (778 GiB)", OXE, "Kalashnikov et al. 2018, arXiv:1806.10293",
        "gs://gresearch/robotics/kuka/0.1.0", keep_if="success",
        quirks="some of its states are zlib-compressed tensors, so no true motion is read",
    ),
    DataSet(
        "bridge", "BridgeData, Open X-Embodiment's older copy", "image", 5.0, "480x640", "28,935",
        "`gs://gresearch/robotics/bridge/0.1.0` (388 GiB)", OXE, "Walke et al. 2023, arXiv:2308.12952",
        "gs://gresearch/robotics/bridge/0.1.0", motion="steps/observation/state",
        quirks="out of date: use bridge_dataset",
    ),
    DataSet(
        "bridge_dataset", "BridgeData V2", "image_0", 5.0, "256x256", "about 60,000",
        "rail.eecs.berkeley.edu/datasets/bridge_release/data/tfds (124 GB)", "CC-BY-4.0",
        "Walke et al. 2023, arXiv:2308.12952", motion="steps/observation/state",
        quirks="the action of a first step is padding (zeros), so no label is drawn there; `image_1` .. "
        "`image_3` are black in many episodes",
    ),
    DataSet(
        "language_table", "Language-Table", "rgb", 10.0, "360x640", "442,226",
        "`gs://gresearch/robotics/language_table/0.1.0` (400 GiB)", OXE, "Lynch et al. 2022, arXiv:2210.06407",
        "gs://gresearch/robotics/language_table/0.1.0",
        quirks="the instruction is a row of UTF-8 codes, read as text",
    ),
    DataSet(
        "taco_play", "TACO Play", "rgb_static", 15.0, "150x200", "3,603",
        "`gs://gresearch/robotics/taco_play/0.1.0` (48 GiB)", OXE, "Rosete-Beas et al. 2022, arXiv:2209.08959",
        "gs://gresearch/robotics/taco_play/0.1.0",
    ),
    DataSet(
        "jaco_play", "JACO Play", "image", 10.0, "224x224", "1,085",
        "`gs://gresearch/robotics/jaco_play/0.1.0` (9 GiB)", OXE, "Dass et al. 2023, JACO Play dataset",
        "gs://gresearch/robotics/jaco_play/0.1.0",
        quirks="features.json does not state the image format: JPEG and PNG are recognized by their first bytes",
    ),
)  # fmt: skip
SHORT = {"fractal": "fractal20220817_data"}  # common short names
MIXES: dict[str, tuple[str, ...]] = {"robotics_mix": ("fractal20220817_data", "kuka", "tabletop")}
"""Named mixtures, in which the weight of a source is its seconds of video. robotics_mix is that of the Genie paper
(section 3, which gives no weights): RT-1, successful QT-Opt episodes, and simulation."""


def known(name: str) -> DataSet | None:
    """The row whose name is the longest beginning of `name` that ends where a word of it ends, or None."""
    name = name.lower()

    def begins(start: str) -> bool:
        return name.startswith(start) and not name[len(start) : len(start) + 1].isalpha()

    rows = [row for row in CATALOG if begins(row.name)]
    rows += [row for row in CATALOG for short, whole in SHORT.items() if row.name == whole and begins(short)]
    return max(rows, key=lambda row: len(row.name), default=None)


def known_hz(name: str) -> float | None:
    """The rate of the data set of this name, or None."""
    row = known(name)
    return row.hz if row else None


def catalog_table() -> str:
    """The catalog as the table of datasets/README.md."""
    lines = [
        "| data set | get it | camera key, size | episodes | Hz | true motion | license; cite |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in CATALOG:
        name = row.title if row.title == row.name else f"{row.title}, `{row.name}`"
        motion = f"`{row.motion}`" if row.motion else "not read"
        lines.append(
            f"| {name} | {row.get} | `{row.image_key}` {row.size} | {row.episodes} | {row.hz:g} | {motion} | "
            f"{row.license}; {row.citation} |"
        )
    lines += ["", *(f"- `{row.name}`: {row.quirks}." for row in CATALOG if row.quirks)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(catalog_table())
