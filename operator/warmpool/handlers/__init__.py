"""kopf's side: handlers parse, store and return. They never write to an object."""
