"""Decide what a folder or file is, by evidence for and against every kind of data."""

from dataclasses import dataclass, field


@dataclass
class Evidence:
    """Evidence for and against one kind of data in a folder.

    Attributes:
        found: What the reader of the kind takes; None or empty if nothing speaks for the kind.
        reasons: Lines that speak for the kind.
        against: Lines that speak against it.
        remedy: What decides, if something speaks against it.
        refused: True if the data are of this kind and cannot be used.
    """

    found: object = None
    reasons: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    remedy: str = ''
    refused: bool = False

    def add_for(self, reason: str) -> None:
        """Add a reason for the kind."""
        self.reasons.append(reason)

    def add_against(self, reason: str) -> None:
        """Add a reason against the kind."""
        self.against.append(reason)

    def refuse(self, reason: str, remedy: str) -> None:
        """Say that the data are of a kind that cannot be used."""
        self.against.append(reason)
        self.remedy = remedy
        self.refused = True
