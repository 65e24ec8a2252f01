"""One opened variant, as a task sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.adapters import Adapters
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Session
from edgepack_runtime.errors import DeviceError, TrustError
from edgepack_runtime.inputs import Inputs
from edgepack_runtime.inputs.audio import AudioReader
from edgepack_runtime.inputs.image import ImageReader
from edgepack_runtime.inputs.text import TextEncoder

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Opened:
    """What a call uses.  A call takes this once, so nothing changes while it runs."""

    task: Task
    """The task of the model."""
    variant: Variant
    """The variant that runs."""
    graphs: Mapping[str, Session]
    """Its graphs by name."""
    inputs: Inputs
    """Turns the inputs of a call into tensors."""
    adapters: Adapters = field(default_factory=lambda: Adapters({}))
    """What a call may add to the products of a language model."""
    identity: str = ""
    """Digest of the variant's files and of what reads its inputs; empty if there are no files."""

    @property
    def text(self) -> TextEncoder:
        """Return the encoder of texts; a `TrustError` if the bundle has none."""
        if self.inputs.text is None:
            raise TrustError(f"the bundle has no tokenizer, which {self.task.name} needs")
        return self.inputs.text

    @property
    def image(self) -> ImageReader:
        """Return the reader of images; a `TrustError` if the bundle does not describe them."""
        if self.inputs.image is None:
            raise TrustError(f"the bundle describes no image, which {self.task.name} needs")
        return self.inputs.image

    @property
    def audio(self) -> AudioReader:
        """Return the reader of sounds; a `TrustError` if the bundle does not describe them."""
        if self.inputs.audio is None:
            raise TrustError(f"the bundle describes no sound, which {self.task.name} needs")
        return self.inputs.audio

    def graph(self, name: str) -> Session:
        """Return a graph; a `TrustError` if the variant has none of that name."""
        if name not in self.graphs:
            raise TrustError(
                f"variant {self.variant.name} has no graph {name!r}, which {self.task.name} needs"
            )
        return self.graphs[name]

    def run(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on arrays by name; return its outputs by name."""
        return self.graph(graph).run(feeds)

    def check_feeds(self, graph: str, made: tuple[str, ...]) -> None:
        """Check that a graph takes only inputs that a task makes.

        Raises:
            DeviceError: it takes others.

        """
        if unknown := sorted(set(self.graph(graph).inputs) - set(made)):
            raise DeviceError(
                f"the graph of {self.variant.name} needs {', '.join(unknown)}, which this runtime "
                f"does not make; it makes {', '.join(made)}"
            )
