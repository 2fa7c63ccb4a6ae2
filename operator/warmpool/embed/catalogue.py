"""The catalogue as the settings describe it."""

from warmpool.effects.mongo import MongoCatalogue, MongoShelf, open_client
from warmpool.planning.catalogue import checked
from warmpool.settings import Settings


def open_catalogue(settings: Settings) -> MongoCatalogue | None:
    """The one in MongoDB; None: VMFlavors are in force.

    Raises:
        CatalogueConfigInvalid: the URI cannot be used.
    """
    if settings.catalogue != "mongodb" or settings.mongodb_uri is None:
        return None
    client = open_client(settings.mongodb_uri.get_secret_value())
    shelf = MongoShelf(client, settings.mongodb_database, settings.mongodb_collection)
    return MongoCatalogue(shelf, checked)
