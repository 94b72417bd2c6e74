"""Evidence for and against every kind of data that a folder or file may be."""

from dataclasses import dataclass, field


@dataclass
class Evidence:
    """Evidence for and against one kind of data in a folder.

    Attributes:
        found: What the reader of the kind takes; None or empty if nothing speaks for the kind.
        reasons: Lines that speak for the kind.
        against: Lines that speak against it, with what decides; empty if ``--task`` does.
        rivals: What speaks for other kinds, and therefore against this one.
        used: Files that the reader reads, relative to the root.
        images: Image -> its class, of the images in folders of classes and of tables; empty for other kinds.
        coverage: Share of the images that the kind describes.
        refused: True if the data are of this kind and cannot be used.
    """

    found: object = None
    reasons: list[str] = field(default_factory=list)
    against: list[tuple[str, str]] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    images: dict[str, str] = field(default_factory=dict)
    coverage: float = 1.0
    refused: bool = False

    def add_against(self, reason: str, remedy: str = '') -> None:
        """Add a reason against the kind."""
        self.against.append((reason, remedy))

    def refuse(self, reason: str, remedy: str) -> None:
        """Say that the data are of a kind that cannot be used."""
        self.add_against(reason, remedy)
        self.refused = True

    @property
    def remedies(self) -> list[str]:
        """Options and changes that decide, without those that ``--task`` decides."""
        return [remedy for _, remedy in self.against if remedy]
