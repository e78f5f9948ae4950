"""Name and URL lists: dangerous sites and categories, millions of entries in one file that all workers share.

entries.py      what a line of a list means
hosts.py        names and addresses as lists compare them
suffixes.py     the public suffix list
matching.py     which entries a name or a URL can have: the semantics, without any storage
matcher.py      the semantics over a few entries in memory: the owner's own
fileformat.py   the bytes of a compiled file
listfile.py     the semantics over a compiled file, mapped into memory
source.py       lists.toml
compile.py      a source directory in, a compiled file out
commands.py     `mamori lists`
"""
