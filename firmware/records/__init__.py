"""What is written down about a build: what is in it, under which licences, what it was made from, and the checksums of all."""
