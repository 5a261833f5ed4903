"""How fast socksd is, beside its peers; see README.rst in this folder."""
