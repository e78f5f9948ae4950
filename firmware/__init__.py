"""The host side of Mamori: a recipe goes in, a signed firmware image comes out."""
