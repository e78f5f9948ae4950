"""Keys and what may be done with them: the only code of the project that may touch a private key.

`uri` names a key, `keyset` says which key is for what, `check` refuses a keyset that cannot be trusted, `commands` plans
the tools that sign, `unlocked` lends them an encrypted key, `anchors` gives what an image may know.
"""
