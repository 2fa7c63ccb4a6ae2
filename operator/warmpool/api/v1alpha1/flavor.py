"""VMFlavor: what a name in the catalogue means, and who may use it."""

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.base import Condition, Metadata, Model, NovaName, ServerMetadata, Time

PropertyValue = Annotated[str, StringConstraints(max_length=255)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class NewestImage(Model):
    """The newest active image that has all of this."""

    properties: dict[str, PropertyValue] = Field(default_factory=dict, max_length=20)
    """Properties that the image has, such as `os_distro: debian`."""
    tags: list[Tag] = Field(default_factory=list, max_length=20)
    """Tags that the image has."""


class ImageChoice(Model):
    """An image, one way or the other."""

    name: NovaName | None = None
    """Name or id of a Glance image."""
    newest: NewestImage | None = None
    """The newest of the images with these properties and tags. Pools follow when there is a newer
    one."""


class AllowedProject(Model):
    """A project that may use an entry: told by its id, or by its name and domain."""

    project_id: str | None = Field(default=None, min_length=1, max_length=64, alias="projectID")
    """Id of the Keystone project. No project's name is taken for one."""
    project: str | None = Field(default=None, min_length=1, max_length=64)
    """Name of the Keystone project, with its `domain`: names are unique within one only."""
    domain: str | None = Field(default=None, min_length=1, max_length=64)
    """Id or name of the project's domain: only who runs the cloud gives those."""
    roles: list[Annotated[str, StringConstraints(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=20
    )
    """The credentials have one of these roles in the project. None: any role will do."""


class VMFlavorSpec(Model):
    """What the name means."""

    flavor: NovaName
    """Nova flavor, by name or id."""
    image: ImageChoice
    """Glance image."""
    metadata: ServerMetadata = Field(default_factory=dict, max_length=100)
    """Metadata written on every server. What a pool's template says of the same key counts."""
    projects: list[AllowedProject] = Field(default_factory=list, max_length=200)
    """Projects whose pools may use it, as Keystone says whose the pool's credentials are. None:
    every project may."""


class ResolvedFor(Model):
    """What the name came to for one pool."""

    pool: str = Field(max_length=320)
    """Namespace and name of the pool."""
    region: str = Field(default="", max_length=255)
    """Region of its cloud."""
    project_id: str = Field(default="", max_length=64, alias="projectID")
    """Project that its credentials are for."""
    flavor_id: str = Field(default="", max_length=255, alias="flavorID")
    """Nova's id of the flavor."""
    image_id: str = Field(default="", max_length=255, alias="imageID")
    """Glance's id of the image."""
    time: Time
    """When it came to these ids."""
    message: str = Field(default="", max_length=500)
    """Why it means nothing there, or not any more. Empty: it does."""


class VMFlavorStatus(Model):
    """What has become of it."""

    observed_generation: int = Field(default=0, ge=0)
    """The `metadata.generation` that this status was computed from."""
    state: str = Field(default="", max_length=63)
    """One word for `kubectl get`. Conditions are the contract."""
    resolved: list[ResolvedFor] = Field(default_factory=list, max_length=500)
    """What it came to, for each pool that uses it."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """Resolved."""


class VMFlavor(Model):
    """An entry of the catalogue: a name that pools give, and the flavor and image that it means."""

    kind: ClassVar[Kind] = Kind.VM_FLAVOR

    metadata: Metadata
    spec: VMFlavorSpec
    """What the name means."""
    status: VMFlavorStatus = Field(default_factory=VMFlavorStatus)
    """What has become of it. Written by the operator."""
