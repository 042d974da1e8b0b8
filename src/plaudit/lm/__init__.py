"""One file per language-model algorithm, each a generator of events over the roles."""
