"""Pictures and pages: curves, overlays on images, the HTML page."""
