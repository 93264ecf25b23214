"""Why a model cannot be served; apart from the rest, so that whoever reports it need not import a tensor library."""


class LoadError(Exception):
    """A model cannot be served. The message is one line that names the model and the way out."""
