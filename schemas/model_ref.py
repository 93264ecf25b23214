"""How a model is named: in the settings, and in all that is kept of a job."""

from pydantic import BaseModel, ConfigDict, Field


class ModelRef(BaseModel):
    """A model's name, and where its files are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128, description="what requests call it")
    source: str = Field(min_length=1, description="folder or hub id; with engine openai, what the server calls it")
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub model")
