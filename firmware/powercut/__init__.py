"""What a power cut leaves on the disk: an update's writes, recorded, and the loader's choice wherever they may end."""
