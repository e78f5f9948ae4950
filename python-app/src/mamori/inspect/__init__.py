"""The inspection service: today it passes everything and watches that the bridge does."""
